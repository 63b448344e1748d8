"""Fixtures that several rooms share."""

import os
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command line does, before torch is loaded
os.environ.pop("COLUMNS", None)  # the width of the terminal that runs the tests must not change what they see

import forked
import pytest
import torch
import toy

forked.preload()


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One process per core for the whole suite (None: xdist counts the cores); a few files start faster in this process."""
    slow = "not slow" not in config.option.markexpr  # slow tests start processes of their own
    return 0 if slow or config.args != config.getini("testpaths") else None


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Small networks lose time to many threads, and some tests share the cores with processes of their own."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the toy dataset, packed once."""
    return toy.pack_camvid(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def toy_teacher(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a trained toy teacher that knows more than a constant."""
    from segctl.runs import RunFolder
    from segctl.train.session import Request
    from segctl.train.start import start_run

    runs = tmp_path_factory.mktemp("teacher")
    run = toy.toy_run(train={"steps": 60, "validate_every": 60, "checkpoint_every": 60, "batch_size": 8})
    start_run(Request(run, toy_data, runs), RunFolder(runs / "toy"), toy.Silent())
    return runs / "toy"
