"""The demo's commands: what it tells, what it skips, and that its presets are what it says."""

import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest
import torch

from segctl.cli import demo, main
from segctl.data.batches.views import unlabelled_names
from segctl.data.datasets.shapes import SPLIT_SIZES
from segctl.errors import SegctlError
from segctl.models.cost import cost_of
from segctl.schema.load import load_preset


def commands(folder: Path, steps: int | None = None) -> list[list[str]]:
    return [command for together in demo._story(folder, steps) for command in together]


def verbs(folder: Path, steps: int | None = None) -> list[str]:
    return [command[0] for command in commands(folder, steps)]


def test_the_story_ends_with_an_exported_file_its_latency_and_a_report(tmp_path: Path) -> None:
    assert verbs(tmp_path) == ["data", "train", "distill", "distill", "eval", "eval", "eval", "export", "bench", "report"]
    runs = tmp_path / "runs"
    *_, export, bench, _ = commands(tmp_path)
    assert export[1] == bench[2] == str(runs / "student-jml")
    assert bench[1] == str(runs / "teacher")


def test_what_is_there_is_not_made_again(tmp_path: Path) -> None:
    for name in ("teacher", "student-jml"):
        (tmp_path / "runs" / name / "export").mkdir(parents=True)
        (tmp_path / "runs" / name / "model.safetensors").touch()
    (tmp_path / "runs" / "student").mkdir()
    (tmp_path / "runs" / "student-jml" / "export" / "model.onnx").touch()
    assert verbs(tmp_path, 5) == ["data", "distill", "eval", "eval", "eval", "bench", "report"]
    assert commands(tmp_path, 5)[1][-3:] == ["--resume", "--data-root", str(tmp_path / "data")]


def test_the_teacher_and_the_undistilled_student_train_at_the_same_time(tmp_path: Path) -> None:
    sizes = [len(together) for together in demo._story(tmp_path, None)]
    assert sizes == [1, 2, 1, 1, 1, 1, 1, 1, 1]
    teacher, student = demo._story(tmp_path, None)[1]
    assert "shapes-teacher" in teacher
    assert "none" in student
    assert not set(student) & {str(tmp_path / "runs" / "teacher")}  # it reads nothing that the other one writes


def started(monkeypatch: pytest.MonkeyPatch, program: str) -> list[subprocess.Popen[bytes]]:
    """Let `_beside` start a program of Python instead of segctl; gives a list to which its process is added."""
    children = []

    def start(command: list[str], environment: dict[str, str], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
        assert environment == {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // 2))}
        children.append(subprocess.Popen([sys.executable, "-c", program], stderr=stderr))
        return children[0]

    monkeypatch.setattr(demo, "start_segctl", start)
    return children


def test_each_of_two_commands_has_half_of_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    children = started(monkeypatch, "")
    torch.set_num_threads(5)
    try:
        with demo._beside(["distill"]):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(1)
    assert children[0].returncode == 0


def test_a_failure_beside_is_told_with_what_it_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, "import sys; sys.stderr.write('error: the disk is full'); sys.exit(1)")
    printed = r"`segctl distill` ended with exit code 1; it printed:\nerror: the disk is full"
    with pytest.raises(SegctlError, match=printed), demo._beside(["distill"]):
        pass


def test_what_runs_beside_a_failure_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    children = started(monkeypatch, "import time; time.sleep(600)")
    began = time.monotonic()
    with pytest.raises(ValueError, match="the teacher failed"), demo._beside(["distill"]):
        raise ValueError("the teacher failed")
    assert children[0].returncode == -15
    assert time.monotonic() - began < 300


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
