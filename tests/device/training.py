"""Short runs on a device, in the process that calls them, and what they leave to compare."""

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

from toy import PRESET, STUDENT, Silent, toy_run

from segctl.runs import RunFolder
from segctl.schema.load import with_method
from segctl.schema.methods import METHODS
from segctl.schema.run import TrainRun
from segctl.train.build import build_session
from segctl.train.loop import steps
from segctl.train.run_log import RunLog
from segctl.train.session import Request
from tests.device.pretend import LOG


def request(run: TrainRun, data: Path, teacher: Path, runs: Path, device: str) -> Request:
    taught = hasattr(run, "distiller")
    return Request(run, data, runs, teacher if taught else None, device=device)


def run_of(method: str, loss: list[dict[str, Any]] | None = None, **train: Any) -> TrainRun:
    """The toy student under a method; `loss` replaces its task loss."""
    assert method in METHODS
    tree = STUDENT | {"loss": loss or PRESET["loss"]}
    return with_method(toy_run(tree, train=train), method)


def waits_between_reports(run: TrainRun, data: Path, teacher: Path, folder: Path, device: str = "cuda") -> list[tuple[str, str]]:
    """What the host waits for in two steps of a run without a report between them: (what, where in segctl)."""
    asked = request(run, data, teacher, folder, device)
    session = build_session(asked)
    made = RunFolder(folder / "waits")
    made.path.mkdir(parents=True)
    # A run of 300 steps reports every third one.
    with closing(steps(session, made, RunLog(made, run.train.steps, Silent()))) as taken:
        for _ in range(3):
            next(taken)
        LOG.clear()
        for _ in range(2):
            next(taken)
        found = list(LOG.waits)
    shutil.rmtree(made.path)
    return found
