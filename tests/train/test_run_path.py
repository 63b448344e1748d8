"""A run's way from `start_run` to its end: a reader who follows what directs it opens few files."""

import sys
from pathlib import Path

import pytest
from toy import STUDENT, Silent, toy_run

import segctl
from segctl.runs import RunFolder
from segctl.train.session import Request
from segctl.train.start import start_run

MOST_FILES = 20
DIRECTS = ("runs.py", "teacher/", "train/")


@pytest.mark.slow
def test_a_distillation_run_passes_few_files(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    """Count the files of segctl/train/, segctl/teacher/ and segctl/runs.py in which a function is called during the run.

    The run trains a student with a teacher, saves checkpoints, validates and writes its weights. These files decide what happens
    next, so whoever wants to know how a run goes reads them one after the other. Files of other rooms (data, models, losses,
    distillers, metrics, evaluate, runtime, schema) are not counted: a run enters each room by a function such as `build_model`,
    `training_batches` or `count_images`, whose name says what it does, so that a reader of the run need not open it.
    """
    request = Request(toy_run(STUDENT, train={"validate_every": 2}), toy_data, tmp_path, teacher=toy_teacher)
    top = Path(segctl.__file__).parent
    called: set[str] = set()
    before = sys.getprofile()
    sys.setprofile(lambda frame, event, _: called.add(frame.f_code.co_filename) if event == "call" else None)
    try:
        folder = start_run(request, RunFolder(tmp_path / "student"), Silent())
    finally:
        sys.setprofile(before)
    files = {Path(file).relative_to(top).as_posix() for file in called if Path(file).is_relative_to(top)}
    directing = sorted(file for file in files if file.startswith(DIRECTS))
    assert folder.model.is_file()
    assert {"train/loop.py", "train/checkpoint.py", "train/validate.py", "teacher/load.py"} <= set(directing)
    assert len(directing) <= MOST_FILES, "\n".join(directing)
