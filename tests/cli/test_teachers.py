"""Several --teacher on the command line: weights, refusals, and a comparison that shares them."""

import json
from pathlib import Path

import pytest
import torch
from toy import STUDENT, toy_run, write_preset

from segctl.cli import main
from segctl.cli.options import GivenTeachers
from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError
from segctl.models import load, save
from segctl.runs import RunFolder


@pytest.fixture(scope="module")
def other(toy_teacher: Path, toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    network = load(toy_teacher)
    with torch.no_grad():
        network.classifier.bias[0] += 0.3
    path = tmp_path_factory.mktemp("other") / "other.pt"
    save(path, network, toy_run(), open_dataset(toy_data, "camvid").classes.names)
    return path


def typed(*arguments: object) -> int:
    """The exit code of a command."""
    return main([str(argument) for argument in arguments])


def test_paths_and_weights_are_read_apart(tmp_path: Path) -> None:
    a, b, odd = Path("runs/a"), Path("runs/b"), tmp_path / "c=3"
    odd.mkdir()
    assert GivenTeachers.of(None) == ((), None)
    assert GivenTeachers.of([a]) == ((a,), None)
    assert GivenTeachers.of([a, b]) == ((a, b), None)
    assert GivenTeachers.of([Path("runs/a=2"), b]) == ((a, b), (2.0, 1.0))
    assert GivenTeachers.of([Path("hf:org/name=0.5"), odd]) == ((Path("hf:org/name"), odd), (0.5, 1.0))


@pytest.mark.parametrize(
    "text", ["runs/a=0", "runs/a=-1", "runs/a=nan", "runs/a=inf", "runs/a=two", "runs/a=", "=2", "runs/a=1e12"]
)
def test_a_weight_that_is_none_is_refused_in_a_sentence(text: str) -> None:
    with pytest.raises(InputError, match=r"--teacher '.*': got the weight '.*', wanted a number above 0"):
        GivenTeachers.of([Path(text), Path("runs/b")])


def test_the_only_teacher_needs_no_weight() -> None:
    with pytest.raises(InputError, match=r"--teacher 'runs/a=2' gives a weight to the only teacher"):
        GivenTeachers.of([Path("runs/a=2")])


@pytest.mark.slow
def test_a_run_with_two_teachers_stores_their_weights_and_a_comparison_hands_them_on(
    toy_data: Path, toy_teacher: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(tmp_path / "student.yaml", STUDENT, train={"steps": 1, "validate_every": 1})
    roots = ["--data-root", toy_data, "--runs-root", tmp_path / "runs"]
    given = ["--teacher", f"{toy_teacher}=1", "--teacher", f"{other}=3"]
    assert typed("distill", "--preset", preset, *given, "--run", tmp_path / "one", *roots, "--device", "cpu") == 0
    folder = RunFolder(tmp_path / "one")
    assert folder.read_run().model_dump()["teacher"]["weights"] == (1.0, 3.0)
    assert "scores" in folder.read_environment()["teacher"]["members"][1]
    assert typed("distill", "--preset", preset, *given, "--set", "teacher.weights=[2, 1]", *roots) == 2
    assert "give them in one place" in capsys.readouterr().err
    assert typed("compare", "--preset", preset, *given, "--methods", "kd", "--seeds", 1, *roots, "--json") == 0
    record = json.loads((tmp_path / "runs" / "toy-student-kd-seed0" / "environment.json").read_text())["teacher"]
    assert record["sha256"] == folder.read_environment()["teacher"]["sha256"]
    assert typed("compare", "--preset", preset, "--teacher", other, "--methods", "kd", "--seeds", 1, *roots) == 2
    assert "teacher.weights: [1.0, 3.0] -> None" in capsys.readouterr().err


def test_several_teachers_and_no_method_that_learns_from_them_are_refused(
    toy_data: Path, toy_teacher: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(tmp_path / "student.yaml", STUDENT)
    roots = ["--data-root", toy_data, "--runs-root", tmp_path]
    assert typed("distill", "--preset", preset, "--method", "none", "--teacher", toy_teacher, "--teacher", other, *roots) == 2
    assert "--teacher cannot be combined with --method none" in capsys.readouterr().err
    assert typed("distill", "--preset", preset, "--teacher", toy_teacher, "--teacher", toy_teacher, *roots) == 2
    assert "are the same network" in capsys.readouterr().err
