"""One set of run folders for the tests that only read it."""

from dataclasses import replace
from pathlib import Path

import pytest

from segctl.report.collect import Run, read_run
from segctl.runs import RunFolder
from tests.report.run_folders import SHORT, TEACHER, Making, make_run


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs root: two seeds undistilled, two seeds distilled, one unfinished, one not evaluated, two on other data."""
    root = tmp_path_factory.mktemp("shelf") / "runs"
    student = Making(overrides=SHORT)
    for seed in (0, 1):
        make_run(root / f"none-s{seed}", replace(student, seed=seed))
        make_run(root / f"jml-s{seed}", replace(student, seed=seed, method="jml", skill=0.8, teacher=TEACHER))
    make_run(root / "stopped", replace(student, seed=2, method="jml", finished=False, teacher=TEACHER))
    make_run(root / "unscored", replace(student, seed=3, split=None))
    street = Making(preset="cityscapes-psp18", height=40, width=80, fingerprint="aa11bb22cc33dd", absent=("pole",), images=5)
    make_run(root / "city-none", replace(street, overrides=("train.steps=20000",)))
    make_run(root / "city-jml", replace(street, method="jml", skill=0.9, teacher=TEACHER))
    return root


@pytest.fixture(scope="session")
def read(shelf: Path) -> dict[str, Run]:
    """The runs of the shelf by name."""
    return {path.name: read_run(RunFolder(path)) for path in sorted(shelf.iterdir())}
