"""What a dry run finds, and what it leaves behind (nothing)."""

from pathlib import Path

from toy import STUDENT, Silent, toy_run

from segctl.train.dry_run import dry_run
from segctl.train.session import Request


def test_a_dry_run_takes_a_step_and_keeps_nothing(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    found = dry_run(Request(toy_run(STUDENT), toy_data, tmp_path, teacher=toy_teacher), Silent())
    assert {"loss", "step_s", "validation_mIoU_D", "checkpoint_mb", "peak_memory_mb", "teacher_mIoU_D"} == set(found)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_with_a_profile_shows_it_and_keeps_nothing(toy_data: Path, tmp_path: Path) -> None:
    watch = Silent()
    found = dry_run(Request(toy_run(), toy_data, tmp_path, profile=True), watch)
    plain = dry_run(Request(toy_run(), toy_data, tmp_path), Silent())
    assert found["loss"] == plain["loss"]
    assert [row[0] for row in watch.tables[0][1]][-1] == "step"
    assert list(tmp_path.iterdir()) == []
