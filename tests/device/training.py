"""Short runs on a device, in the process that calls them, and what they leave to compare."""

import shutil
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from pathlib import Path
from typing import Any

from toy import PRESET, STUDENT, Silent, toy_run

from segctl.runs import RunFolder
from segctl.schema.load import validate_run, with_method
from segctl.schema.run import DistillRun, TrainRun
from segctl.train.build import build_session
from segctl.train.dry_run import dry_run
from segctl.train.extend import extend_run
from segctl.train.loop import steps
from segctl.train.resume import resume_run
from segctl.train.run_log import RunLog, StepReport
from segctl.train.session import Request
from segctl.train.start import start_run
from tests.device.pretend import LOG

STEPS = 4
FIXED = {"scale": [1.0, 1.0], "crop": [48, 64], "flip": 0.5}
"""A view of whole images, as the teacher cache wants it."""


def run_of(method: str, *, terms: list[dict[str, Any]] | None = None, **blocks: Any) -> TrainRun:
    """The toy's student under a method; `terms` replaces the method's own terms."""
    tree = STUDENT | {"loss": blocks.pop("loss", PRESET["loss"])}
    run = with_method(toy_run(tree, **blocks), method)  # type: ignore[arg-type]
    if terms is None:
        return run
    return validate_run(run.model_dump(mode="json") | {"distiller": {"label_weight": 1.0, "terms": terms}}, "toy")


def request_of(run: TrainRun, data: Path, teacher: Path, runs: Path, device: str) -> Request:
    return Request(run, data, runs, teacher if isinstance(run, DistillRun) else None, device=device)


def waits_between_reports(
    run: TrainRun, data: Path, teacher: Path, folder: Path, meanwhile: AbstractContextManager[object] | None = None
) -> list[tuple[str, str]]:
    """What the host waits for in two steps of a run of 300 without a report between them: (what, where in segctl).

    Only the pretend device tells. `meanwhile` is entered for these two steps.
    """
    session = build_session(request_of(run, data, teacher, folder, "cuda"))
    made = RunFolder(folder / "run")
    made.path.mkdir(parents=True)
    with closing(steps(session, made, RunLog(made, run.train.steps, Silent()))) as taken:
        for _ in range(3):  # the third step reports, the next two do not
            next(taken)
        LOG.clear()
        with meanwhile or nullcontext():
            for _ in range(2):
                next(taken)
        found = list(LOG.waits)
    shutil.rmtree(folder)
    return found


class _StopsAfter(Silent):
    """Ends a run after a step, as a kill would."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def stepped(self, report: object, steps: int) -> None:
        if isinstance(report, StepReport) and report.step == self.step:
            raise KeyboardInterrupt


def events_of(run: TrainRun, options: set[str], data: Path, teacher: Path, runs: Path, device: str) -> list[dict[str, Any]]:
    """The steps and validations that a run logs which is tried before, stopped and resumed, or extended, as `options` say."""
    folder, request = RunFolder(runs / "run"), request_of(run, data, teacher, runs, device)
    tried = [{"event": "dry run", "loss": dry_run(request, Silent())["loss"]}] if "dry run" in options else []
    if "resume" in options:
        with suppress(KeyboardInterrupt):
            start_run(request, folder, _StopsAfter(STEPS // 2 + 1))
        resume_run(request, folder, Silent())
    else:
        start_run(request, folder, Silent())
    if "extend" in options:
        longer = run.model_copy(update={"train": run.train.model_copy(update={"steps": STEPS + 2})})
        extend_run(request_of(longer, data, teacher, runs, device), folder, Silent())
    kept = ("event", "step", "terms", "scores", "skipped")
    logged = [event for event in folder.read_log() if event["event"] != "end"]
    return tried + [{key: value for key, value in event.items() if key in kept} for event in logged]
