"""A number out of bounds, a device that is none and an empty text are refused before torch is loaded."""

import subprocess
import sys

import pytest

from segctl.cli import main

TRAIN = ["train", "--preset", "shapes-teacher"]
COMPARE = ["compare", "--preset", "shapes-student", "--methods", "none"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([*TRAIN, "--steps", "0"], "Invalid value for '--steps'"),
        ([*TRAIN, "--steps", "1000000001"], "Invalid value for '--steps'"),
        ([*TRAIN, "--steps", "9" * 5000], "--steps"),
        ([*TRAIN, "--seed", "1e20"], "Invalid value for '--seed'"),
        ([*TRAIN, "--seed", "99999999999999999999"], "Invalid value for '--seed'"),
        ([*TRAIN, "--seed", "-1"], "Invalid value for '--seed'"),
        ([*TRAIN, "--processes", "100000"], "Invalid value for '--processes'"),
        ([*TRAIN, "--extend-to", "0"], "Invalid value for '--extend-to'"),
        ([*TRAIN, "--device", "cpu:7"], "--device 'cpu:7' is not a device"),
        ([*TRAIN, "--device", "cuda:"], "--device 'cuda:' is not a device"),
        ([*TRAIN, "--device", "cuda:²"], "is not a device"),
        ([*TRAIN, "--device", "tpu"], "--device 'tpu' is not a device"),
        ([*TRAIN, "--device", ""], "--device is empty"),
        ([*TRAIN, "--device="], "--device is empty"),
        ([*TRAIN, "--data-root", ""], "--data-root is empty"),
        ([*TRAIN, "--run", ""], "--run is empty"),
        (["train", "--preset", ""], "--preset is empty"),
        (["distill", "--preset", "shapes-student", "--teacher", ""], "--teacher is empty"),
        (["eval", ""], "an argument is empty"),
        (["eval", "run", "--split", ""], "--split is empty"),
        (["eval", "run", "--protocol="], "--protocol is empty"),
        (["report", "-o", ""], "-o is empty"),
        (["predict", "", "a.png", "-o", "out"], "an argument is empty"),
        ([*COMPARE, "--seeds", "100000"], "Invalid value for '--seeds'"),
        ([*COMPARE, "--devices", "cuda:0,"], "--devices '' is not a device"),
        ([*COMPARE, "--devices", "cuda:0,cpu:3"], "--devices 'cpu:3' is not a device"),
        (["data", "bench", "shapes", "--crop", "999999", "999999"], "Invalid value for '--crop'"),
        (["data", "bench", "shapes", "--samples", "1e20"], "Invalid value for '--samples'"),
        (["data", "bench", "shapes", "--samples", "0"], "Invalid value for '--samples'"),
        (["data", "bench", "shapes", "--workers", "100000"], "Invalid value for '--workers'"),
        (["data", "prepare", "shapes", "--workers", "100000"], "Invalid value for '--workers'"),
        (["data", "prepare", "shapes", "--split-seed", "-1"], "Invalid value for '--split-seed'"),
        (["eval", "run", "--batch", "1000000"], "Invalid value for '--batch'"),
        (["demo", "--steps", "99999999999"], "Invalid value for '--steps'"),
    ],
)
def test_a_wrong_value_is_refused(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    found = " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert said in found
    assert "Traceback" not in found


def test_torch_is_not_loaded_for_it() -> None:
    commands = [[*TRAIN, "--device", "cpu:7"], [*COMPARE, "--devices", "tpu"]]
    code = f"import sys; from segctl.cli import main; print(*map(main, {commands!r}), 'torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["2", "2", "False"]


def test_a_set_of_an_empty_value_is_the_schemas_to_judge(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "show", "shapes-teacher", "--set", "train.ema="]) in (0, 2)
    assert "is empty" not in capsys.readouterr().err
