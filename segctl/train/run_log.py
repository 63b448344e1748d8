"""What a run reports while it trains: who shows it, and its logs.

train.log is for people, log.jsonl for programs, and trackers such as TensorBoard are given the same on request.
"""

import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from segctl.files import append_line, without_infinities, write_text
from segctl.runs import RunFolder
from segctl.schema.run import TrainRun
from segctl.train.trackers.tracking import Tracking

HEADLINE_SCORES = ("mIoU_D", "mIoU_I", "mIoU_C")
"""The scores of a validation that are shown."""


@dataclass(frozen=True)
class StepReport:
    """Means over the steps since the last report; times in seconds, memory in MB.

    gradient_norm: of the last step, before any clipping; infinite if that step was skipped.  skipped: how many of the steps
    changed no weight, because fp16 made a gradient infinite; the scale of the gradients is halved then.
    left_s: how long the rest of the run takes at this pace.
    """

    step: int
    loss: float
    terms: dict[str, float]
    lr: float
    gradient_norm: float
    data_s: float
    step_s: float
    left_s: float
    images_per_s: float
    memory_mb: float
    skipped: int = 0

    def short(self) -> str:
        """`loss 0.412   0.31 s/step`."""
        return f"loss {self.loss:.3f}   {self.step_s:.2f} s/step"

    def line(self, steps: int) -> str:
        """`step 20/200   loss 0.412 = cross_entropy_main 0.318 + jdt_main 0.094   0.31 s/step   56 s left`."""
        parts = " + ".join(f"{name} {value:.3f}" for name, value in self.terms.items())
        left = f"   {_duration(self.left_s)} left" if self.step < steps else ""
        skipped = f"   {self.skipped} steps skipped (fp16)" if self.skipped else ""
        return f"step {self.step}/{steps}   loss {self.loss:.3f} = {parts}   {self.step_s:.2f} s/step{left}{skipped}"


class Watch(Protocol):
    """Shows a run to a person; the command line has one for terminals and one for pipes."""

    def note(self, text: str) -> None:
        """Show a decision or an event."""

    def stepped(self, report: StepReport, steps: int) -> None:
        """Show a report of a run of `steps` steps."""

    def advance(self, label: str, done: int, total: int) -> None:
        """Show the progress of work that is not steps, such as validation."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
        """Show a result, such as a profile."""


class RunLog:
    """Writes log.jsonl and train.log, and passes everything on to the watch.

    writes: whether this process writes files; only the main process of a run does.
    """

    def __init__(self, folder: RunFolder, steps: int, watch: Watch, *, writes: bool = True) -> None:
        self.folder, self.steps, self.watch, self.writes = folder, steps, watch, writes
        self.tracking: Tracking | None = None

    def track(self, names: Sequence[str], run: TrainRun, steps_taken: int = 0) -> None:
        """Give these trackers the same from now on, in a run that has taken `steps_taken` steps."""
        if self.writes and names:
            self.tracking = Tracking(self.folder, run, names, steps_taken, self.note)

    def show_worst(self, step: int, draw: Callable[[Path], Sequence[Path]]) -> None:
        """Give the trackers, if there are any, the pictures that `draw` makes in a folder."""
        if self.tracking is not None and self.tracking.open:
            with tempfile.TemporaryDirectory() as folder:
                self.tracking.show(step, draw(Path(folder)))

    def close(self, *, finished: bool) -> None:
        """Close the trackers. finished: whether the run has ended, and was not stopped."""
        if self.tracking is not None:
            self.tracking.close(finished=finished)

    def continue_from(self, step: int) -> None:
        """Drop the events after a step: the resumed run takes those steps again."""
        if not self.writes:
            return
        kept = [event for event in self.folder.read_log() if event.get("step", 0) <= step and event["event"] != "end"]
        write_text(self.folder.log, "".join(_line(event) + "\n" for event in kept))

    def note(self, text: str) -> None:
        """Show a decision or an event, and write it to train.log."""
        self.watch.note(text)
        self.write_line(text)

    def write_line(self, text: str) -> None:
        """Write a line to train.log only."""
        if not self.writes:
            return
        append_line(self.folder.train_log, f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}  {text}")

    def stepped(self, report: StepReport) -> None:
        """Show and write the report of some steps."""
        self.watch.stepped(report, self.steps)
        self.write_line(report.line(self.steps))
        self.event("step", asdict(report))

    def validated(self, step: int, scores: dict[str, float | None], shown: Sequence[str] = HEADLINE_SCORES) -> None:
        """Write the scores of a validation, in percent, and show those of `shown`."""
        line = "   ".join(f"{name} {_percent(scores[name])}" for name in shown)
        self.note(f"validation after step {step}   {line}")
        self.event("validation", {"step": step, "scores": scores})

    def event(self, kind: str, content: dict[str, Any]) -> None:
        """Write one line of log.jsonl, and give its numbers to the trackers."""
        if not self.writes:
            return
        append_line(self.folder.log, _line({"event": kind, **content}))
        if self.tracking is not None:
            self.tracking.event(kind, content)


def _line(event: dict[str, Any]) -> str:
    return json.dumps(without_infinities(event), allow_nan=False)


def _percent(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.2f}"


def _duration(seconds: float) -> str:
    """`56 s`, `12 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"
