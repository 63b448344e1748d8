"""Which of several finished runs becomes the teacher, and what is said about the others."""

import json
import os
from pathlib import Path

import pytest
import yaml
from toy import PRESET, STUDENT, toy_run

from segctl.errors import InputError
from segctl.runs import RunFolder
from segctl.schema.run import DistillRun
from segctl.teacher.find import BEST, find_teacher

DATA = "d" * 64


def finished(root: Path, name: str, score: float | None, age_s: int, *, data: str = DATA, shipped: int = 20) -> RunFolder:
    """A finished run whose validation at step 20 gave `score`, and 99 at step 10, whose weights it does not ship."""
    folder = RunFolder(root / name)
    folder.path.mkdir(parents=True)
    folder.run_yaml.write_text(yaml.safe_dump(PRESET))
    folder.environment.write_text(json.dumps({"dataset": {"name": "camvid", "fingerprint": data}}))
    events = [{"event": "validation", "step": 10, "scores": {"mIoU_D": 99.0}}]
    events += [{"event": "validation", "step": 20, "scores": {"mIoU_D": score}}]
    events += [{"event": "end", "step": 20, "weights_step": shipped, "weights_of": "last"}]
    folder.log.write_text("".join(json.dumps(event) + "\n" for event in events))
    folder.model.write_bytes(b"")
    os.utime(folder.model, (1_000_000_000 - age_s, 1_000_000_000 - age_s))
    return folder


def student() -> DistillRun:
    run = toy_run(STUDENT)
    assert isinstance(run, DistillRun)
    return run


def test_the_newest_is_taken_and_the_others_are_named(tmp_path: Path) -> None:
    finished(tmp_path, "a", 70.5, age_s=3)
    finished(tmp_path, "b", 72.25, age_s=2)
    newest = finished(tmp_path, "c", 71.0, age_s=1)
    assert find_teacher(student(), None, tmp_path) == (
        newest.model,
        "teacher chosen: c 71.00 mIoU_D in validation, the newest of 3 runs of 'toy'; others: b 72.25, a 70.50; "
        "--teacher best takes the best",
    )


def test_the_best_is_taken_by_the_validation_of_the_weights_that_it_ships(tmp_path: Path) -> None:
    finished(tmp_path, "a", 70.5, age_s=3)
    best = finished(tmp_path, "b", 72.25, age_s=2)
    finished(tmp_path, "c", None, age_s=1)
    assert find_teacher(student(), BEST, tmp_path) == (
        best.model,
        "teacher chosen: b 72.25 mIoU_D in validation, the best of 3 runs of 'toy'; others: c without a score, a 70.50",
    )
    earlier = finished(tmp_path, "d", 10.0, age_s=9, shipped=10)  # its network is that of step 10
    assert find_teacher(student(), BEST, tmp_path).path == earlier.model


def test_a_run_on_other_data_is_never_the_best(tmp_path: Path) -> None:
    mine = finished(tmp_path, "a", 50.0, age_s=3)
    finished(tmp_path, "b", 90.0, age_s=2, data="e" * 64)
    assert find_teacher(student(), BEST, tmp_path, fingerprint=DATA).path == mine.model


def test_a_damaged_run_does_not_keep_another_from_teaching(tmp_path: Path) -> None:
    good = finished(tmp_path, "a", 50.0, age_s=3)
    finished(tmp_path, "b", 90.0, age_s=9).log.write_text("{\n\n")
    assert find_teacher(student(), BEST, tmp_path).path == good.model
    assert "b without a score" in find_teacher(student(), None, tmp_path).note


def test_one_run_is_no_choice(tmp_path: Path) -> None:
    only = finished(tmp_path, "a", 50.0, age_s=1)
    assert find_teacher(student(), None, tmp_path) == find_teacher(student(), BEST, tmp_path) == (only.model, "")


def test_a_best_that_nobody_can_know_is_refused(tmp_path: Path) -> None:
    finished(tmp_path, "a", None, age_s=1)
    with pytest.raises(InputError, match="has a validation score on this data, so none is the best"):
        find_teacher(student(), BEST, tmp_path)
    with pytest.raises(InputError, match="there is no finished run of the teacher preset 'toy'"):
        find_teacher(student(), BEST, tmp_path / "none")


def test_a_folder_called_best_is_told_from_the_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished(tmp_path, "a", 50.0, age_s=1)
    finished(tmp_path, "best", 40.0, age_s=2)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="there is also a file or folder 'best' here"):
        find_teacher(student(), BEST, tmp_path)
    assert find_teacher(student(), tmp_path / "best", tmp_path).path == tmp_path / "best" / "model.safetensors"
