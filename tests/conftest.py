"""Fixtures that several rooms share. torch is imported inside them: the process that hands out the tests does without it."""

import gc
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from segctl.runtime.cores import waiting_threads

os.environ.update(waiting_threads())  # as the command line does, before torch is loaded
# Containers often say that no bytecode is kept. Then each worker would rewrite the assertions of all tests and each process that
# a test starts would compile all of segctl: a tenth of the suite's time.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
os.environ.pop("COLUMNS", None)  # the width of the terminal that runs the tests must not change what they see

import pytest
from filelock import FileLock

sys.dont_write_bytecode = False


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One process per core for the whole suite (None: xdist counts the cores); a few files start faster in this process."""
    slow = "not slow" not in config.option.markexpr  # slow tests start processes of their own
    return 0 if slow or config.args != config.getini("testpaths") else None


def pytest_collection_finish() -> None:
    """Keep the million objects of imported modules and collected tests out of every later garbage collection."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The gauntlet comes first: it forks this process, so nothing may have been computed here with several threads."""
    items.sort(key=lambda item: "gauntlet" not in item.path.parts)


@pytest.fixture(scope="session", autouse=True)
def _ready() -> None:
    """Before any other fixture: what the others train is trained on one thread."""
    import forked
    import torch

    # A disk takes 4 ms to say that a file is on it, and a run asks 14 times. No test cuts the power.
    os.fsync = lambda handle: None
    torch.set_num_threads(1)
    forked.preload()


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Small networks lose time to many threads, and a fork of a process whose torch has several hangs. Some tests set more."""
    import torch

    if torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the toy dataset, packed once."""
    import toy

    return toy.pack_camvid(tmp_path_factory.mktemp("toy"))


def made_once(name: str, make: Callable[[Path], object], factory: pytest.TempPathFactory) -> Path:
    """The folder that `make` fills: one of the processes of a test run does, and the others wait for it."""
    base = factory.getbasetemp()
    shared = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    with FileLock(shared / f"{name}.lock"):
        if not (shared / f"{name}.done").exists():
            shutil.rmtree(shared / name, ignore_errors=True)
            make(shared / name)
            (shared / f"{name}.done").touch()
    return shared / name


@pytest.fixture(scope="session")
def toy_teacher(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained toy teacher that knows more than a constant."""
    import toy

    from segctl.runs import RunFolder
    from segctl.train.session import Request
    from segctl.train.start import start_run

    def train(runs: Path) -> None:
        run = toy.toy_run(train={"steps": 60, "validate_every": 60, "checkpoint_every": 60, "batch_size": 8})
        start_run(Request(run, toy_data, runs), RunFolder(runs / "toy"), toy.Silent())

    trained = made_once("trained", train, tmp_path_factory)
    return Path(shutil.copytree(trained / "toy", tmp_path_factory.mktemp("teacher") / "toy"))  # tests write scores into it


@pytest.fixture(scope="session")
def toy_export(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """The run folder of a toy teacher with `export/model.onnx`, which torch takes 20 s for. Copy it before changing it."""
    from segctl.export.run import ExportRequest, export_run
    from segctl.runs import RunFolder

    def export(folder: Path) -> None:
        shutil.copytree(request.getfixturevalue("toy_teacher"), folder / "toy", ignore=shutil.ignore_patterns("eval"))
        export_run(ExportRequest(RunFolder(folder / "toy"), request.getfixturevalue("toy_data")))

    return made_once("exported", export, tmp_path_factory) / "toy"
