"""The demo's commands: what it tells, what it skips, and that its presets are what it says."""

from pathlib import Path

import pytest

from segctl.cli import demo, main
from segctl.data.batches.views import unlabelled_names
from segctl.data.datasets.shapes import SPLIT_SIZES
from segctl.models.cost import cost_of
from segctl.schema.load import load_preset


def verbs(folder: Path, steps: int | None = None) -> list[str]:
    return [command[0] for command in demo._commands(folder, steps)]


def test_the_story_ends_with_an_exported_file_its_latency_and_a_report(tmp_path: Path) -> None:
    assert verbs(tmp_path) == ["data", "train", "distill", "distill", "eval", "eval", "eval", "export", "bench", "report"]
    runs = tmp_path / "runs"
    *_, export, bench, _ = demo._commands(tmp_path, None)
    assert export[1] == bench[2] == str(runs / "student-jml")
    assert bench[1] == str(runs / "teacher")


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    for name in ("teacher", "student-jml"):
        (tmp_path / "runs" / name / "export").mkdir(parents=True)
        (tmp_path / "runs" / name / "model.safetensors").touch()
    (tmp_path / "runs" / "student").mkdir()
    (tmp_path / "runs" / "student-jml" / "export" / "model.onnx").touch()
    assert verbs(tmp_path, 5) == ["data", "distill", "eval", "eval", "eval", "bench", "report"]
    assert demo._commands(tmp_path, 5)[1][-3:] == ["--resume", "--data-root", str(tmp_path / "data")]


def test_the_teacher_is_at_least_five_times_as_dear_as_the_student() -> None:
    teacher, student = (cost_of(load_preset(name).model, 8, (128, 160)).gflop for name in (demo.TEACHER, demo.STUDENT))
    assert teacher > 5 * student


def test_the_closing_words_count_the_labels() -> None:
    names = [f"train-{index:04d}" for index in range(SPLIT_SIZES["train"])]
    hidden = len(unlabelled_names(names, load_preset(demo.STUDENT).data.labelled))
    for number in (len(names) - hidden, len(names), hidden):
        assert str(number) in demo.CLOSING
    assert load_preset(demo.TEACHER).data.labelled == 1


@pytest.mark.slow
def test_a_short_demo_exports_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", str(tmp_path), "--steps", "40"]) == 0
    assert (tmp_path / "runs" / "student-jml" / "export" / "model.onnx").is_file()
    strip = tmp_path / "report_files" / "first-row.png"
    assert strip.is_file()
    assert str(strip) in capsys.readouterr().out.replace("\n", "")
