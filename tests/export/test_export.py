"""`export` through the front door: what is in the file, what keeps it from its name, and what is refused."""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import pytest
from toy import CLASSES, HEIGHT, WIDTH

from segctl.cli import main
from segctl.export import run as export_module
from segctl.export.parity import Parity, Tolerance, spread_evenly
from segctl.files import file_sha256
from segctl.models import load
from segctl.programs import open_program


@pytest.fixture
def here(toy_export: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with `run`, which has export/model.onnx."""
    monkeypatch.setenv("SEGCTL_DATA", str(toy_data))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(toy_export, tmp_path / "run")
    return tmp_path


SCRIPT = ["export", "run", "--format", "torchscript"]


def left(here: Path) -> list[str]:
    return sorted(path.name for path in (here / "run" / "export").iterdir())


def test_an_onnx_file_says_what_it_is_and_nothing_of_this_machine(here: Path) -> None:
    file = here / "run" / "export" / "model.onnx"
    facts = open_program(file).facts
    assert len(facts.class_names) == len(facts.colors) == CLASSES
    assert (facts.preset, facts.output, facts.size, facts.opset) == ("toy", "labels", None, 18)
    assert facts.weights_sha256 == file_sha256(here / "run" / "model.safetensors")
    assert facts.data.dataset == "camvid"
    assert facts.data.fingerprint is not None
    np.testing.assert_allclose(facts.mean, load(here / "run").pixel_mean.flatten() / 255, atol=1e-6)
    onnx.checker.check_model(onnx.load(file), full_check=True)
    content = file.read_bytes()
    assert not any(trace in content for trace in (b".py", b"site-packages", str(Path.home()).encode() + b"/", b"torch/nn"))


def test_the_scores_of_the_run_are_in_the_file(here: Path) -> None:
    assert main(["eval", "run"]) == 0
    assert main(SCRIPT) == 0
    scores = json.loads((here / "run" / "eval" / "val" / "scores.json").read_text())
    told = open_program(here / "run" / "export" / "model.torchscript.pt", trusted=True).facts.scores
    assert told == {name: scores[name] for name in ("Acc", "mIoU_D", "mIoU_I", "mIoU_C")}


def test_the_result_is_shown_and_names_the_next_command(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SCRIPT, "--parity", "2"]) == 0
    said = capsys.readouterr().out
    assert "RGB images uint8 (B, H, W, 3) of any size -> labels" in said
    assert "0 % of the pixels of 2 images differ; mIoU_D" in said
    assert "next: segctl eval run --model run/export/model.torchscript.pt --trust-program" in said


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch", "openvino", "onnx"])
def test_other_formats_agree_with_the_run(form: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if form == "openvino":
        pytest.importorskip("openvino")
    assert main(["export", "run", "--format", form, "--output", "logits", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["parity"]["percent_of_pixels"] <= 0.1
    assert told["parity"]["images"] == 5
    assert open_program(Path(told["file"]), trusted=True).facts.output == "logits"
    assert told["bytes"] >= Path(told["file"]).stat().st_size


def test_a_fixed_size_is_in_the_name_and_takes_nothing_else(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SCRIPT, "--size", "60x50", "--output", "probabilities"]) == 0
    assert left(here) == ["model-probabilities-60x50.torchscript.pt", "model.onnx"]
    capsys.readouterr()
    assert main(["predict", f"run/export/{left(here)[0]}", "pictures", "-o", "out", "--trust-program"]) == 2
    picture(here / "pictures" / "a.png", HEIGHT, WIDTH)
    assert main(["predict", f"run/export/{left(here)[0]}", "pictures", "-o", "out", "--trust-program"]) == 2
    assert "takes only images of 60×50 pixels, got 48×64" in capsys.readouterr().err
    assert not (here / "out").exists()


def picture(path: Path, height: int, width: int) -> None:
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)


def test_a_file_that_differs_is_exit_code_3_and_keeps_a_name_that_says_so(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    compare = export_module.compare_with_run

    def with_another_network(network, *rest, **named):
        network.classifier.bias.data[0] += 3
        return compare(network, *rest, **named)

    monkeypatch.setattr(export_module, "compare_with_run", with_another_network)
    assert main(SCRIPT) == 3
    said = capsys.readouterr().err
    assert "the exported file differs from the run: " in said
    assert "allowed are 0.1 % and 0.1 points" in said
    assert left(here) == ["model-failed-parity.torchscript.pt", "model.onnx"]
    assert main([*SCRIPT, "--tolerance", "100"]) == 0


def test_a_file_that_exists_is_not_replaced(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (here / "run" / "export" / "model.onnx").read_bytes()
    assert main(["export", "run"]) == 2
    assert "'run/export/model.onnx' exists already" in capsys.readouterr().err
    assert (here / "run" / "export" / "model.onnx").read_bytes() == before


def test_without_its_data_a_run_is_exported_only_when_asked_to(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SEGCTL_DATA", str(here / "none"))
    assert main(SCRIPT) == 2
    assert left(here) == ["model.onnx"]
    assert main([*SCRIPT, "--parity", "0"]) == 0
    assert "was not compared with the run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing"], "'nothing' is not a run"),
        (["run", "--format", "onyx"], "--format 'onyx' is not known, did you mean 'onnx'?"),
        (["run", "--int8", "--format", "torch"], "--int8 cannot be combined with --format torch"),
        (["run", "--fp16", "--format", "openvino"], "--fp16 cannot be combined with --format openvino"),
        (["run", "--fp16", "--int8"], "--int8 cannot be combined with --fp16"),
        (["run", "--output", "label"], "--output 'label' is not known, did you mean 'labels'?"),
        (["run", "--size", "0x5"], "cannot read --size '0x5'"),
        (["run", "--size", "512"], "cannot read --size '512'"),
        (["run", "--size", "99999x5"], "has a side of more than 65,536 pixels"),
    ],
)
def test_bad_input_is_a_sentence(arguments: list[str], said: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", *arguments]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert left(here) == ["model.onnx"]


def test_an_unfinished_run_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "run" / "model.safetensors").unlink()
    shutil.rmtree(here / "run" / "export")
    assert main(SCRIPT) == 2
    assert "has not finished: it has no model.safetensors" in " ".join(capsys.readouterr().err.split())
    assert not (here / "run" / "export").exists()


def test_a_missing_extra_is_a_sentence(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert main(["export", "run", "--format", "openvino"]) == 2
    assert 'pip install "segctl[openvino]"' in capsys.readouterr().err


def test_an_export_that_fails_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(here / "run" / "export")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export_module, "compare_with_run", stop)
    assert main(SCRIPT) == 130
    assert not (here / "run" / "export").exists()


def test_a_signal_to_end_leaves_nothing(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def killed(*_: object, **__: object) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        except Exception:  # as the exporters have it
            pytest.fail("the signal was taken for an error of a library")

    monkeypatch.setattr(export_module, "compare_with_run", killed)
    before = signal.getsignal(signal.SIGTERM)
    assert main(SCRIPT) == 128 + signal.SIGTERM
    assert "the export was stopped; nothing is left of it" in capsys.readouterr().err
    assert left(here) == ["model.onnx"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_parity_by_hand() -> None:
    found = Parity(images=2, pixels=3, of_pixels=1000, run=60.0, file=59.95)
    assert found.percent == pytest.approx(0.3)
    assert found.within(Tolerance(0.3, 0.1))
    assert not found.within(Tolerance(0.2, 0.1))
    assert not found.within(Tolerance(1.0, 0.01))
    assert found.in_words() == "0.3 % of the pixels of 2 images differ; mIoU_D 59.95 against 60.00 of the run"
    assert spread_evenly(list("abcdefgh"), 3) == ["a", "c", "f"]
    assert spread_evenly(list("ab"), 5) == ["a", "b"]


@pytest.mark.slow
def test_int8_is_a_quarter_of_the_size_and_scores_within_its_tolerance(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "run", "--int8", "--calibration-images", "6", "--tolerance", "5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file"] == "run/export/model-int8.onnx"
    assert told["bytes"] < 0.5 * (here / "run" / "export" / "model.onnx").stat().st_size
    assert abs(told["parity"]["mIoU_D"] - told["parity"]["mIoU_D_of_run"]) <= 5
    assert open_program(Path(told["file"])).facts.int8


@pytest.mark.slow
def test_fp16_is_half_the_size_and_scores_as_the_run_on_a_cpu_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "run", "--fp16", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file"] == "run/export/model-fp16.onnx"
    assert told["bytes"] < 0.6 * (here / "run" / "export" / "model.onnx").stat().st_size
    assert told["parity"]["percent_of_pixels"] <= 1
    facts = open_program(Path(told["file"])).facts
    assert (facts.fp16, facts.int8) == (True, False)
