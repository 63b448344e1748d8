"""Who is told what while a run goes on, and the two logs it leaves."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from segctl.files import write_text
from segctl.runs import RunFolder
from segctl.train.trackers import Board, open_board


@dataclass(frozen=True)
class StepReport:
    """Means over the steps since the last report; times in seconds, memory in MB.

    gradient_norm is the last step's, before any clipping; left_s what the rest of the run would take at this pace.
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

    def short(self) -> str:
        """`loss 0.412   0.31 s/step`."""
        return f"loss {self.loss:.3f}   {self.step_s:.2f} s/step"

    def line(self, steps: int) -> str:
        """`step 20/200   loss 0.412 = cross_entropy_main 0.318 + jdt_main 0.094   0.31 s/step   56 s left`."""
        parts = " + ".join(f"{name} {value:.3f}" for name, value in self.terms.items())
        left = f"   {_duration(self.left_s)} left" if self.step < steps else ""
        return f"step {self.step}/{steps}   loss {self.loss:.3f} = {parts}   {self.step_s:.2f} s/step{left}"


class Watch(Protocol):
    """What the command line shows of a run."""

    def note(self, text: str) -> None:
        """A decision or an event."""

    def stepped(self, report: StepReport, steps: int) -> None:
        """Some steps were taken."""

    def advance(self, label: str, done: int, total: int) -> None:
        """A part of the run that is not steps, such as validation, went on."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
        """Something that the run was asked to find out."""


class RunLog:
    """Writes log.jsonl and train.log, and passes everything on to the watcher.

    keeps: whether this process writes; the others of a run only pass on.
    """

    def __init__(self, folder: RunFolder, steps: int, watch: Watch, *, keeps: bool = True) -> None:
        self.folder, self.steps, self.watch, self.keeps = folder, steps, watch, keeps
        self.board: Board | None = None

    def draw(self, steps_taken: int = 0) -> None:
        """From now on write for TensorBoard too, in a run that has taken so many steps."""
        if self.keeps:
            self.board = open_board(self.folder, steps_taken)

    def continue_from(self, step: int) -> None:
        """Drop the events after a step, which a resumed run will write again."""
        if not self.keeps:
            return
        kept = [event for event in self.folder.read_log() if event.get("step", 0) <= step and event["event"] != "end"]
        write_text(self.folder.log, "".join(json.dumps(event) + "\n" for event in kept))

    def note(self, text: str) -> None:
        """A decision or an event, for people."""
        self.watch.note(text)
        self._say(text)

    def stepped(self, report: StepReport) -> None:
        self.watch.stepped(report, self.steps)
        self._say(report.line(self.steps))
        self.event("step", asdict(report))

    def quietly(self, text: str) -> None:
        """A line for train.log that the watcher has shown already."""
        self._say(text)

    def validated(self, step: int, scores: dict[str, float | None]) -> None:
        """Scores in percent after a step."""
        shown = "   ".join(f"{name} {_percent(scores[name])}" for name in ("mIoU_D", "mIoU_I", "mIoU_C"))
        self.note(f"validation after step {step}   {shown}")
        self.event("validation", {"step": step, "scores": scores})

    def event(self, kind: str, content: dict[str, Any]) -> None:
        """One line of log.jsonl."""
        if not self.keeps:
            return
        with self.folder.log.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"event": kind, **content}) + "\n")
        if self.board is not None:
            self.board.event(kind, content)

    def _say(self, text: str) -> None:
        if not self.keeps:
            return
        with self.folder.train_log.open("a", encoding="utf-8") as handle:
            handle.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}  {text}\n")


def _duration(seconds: float) -> str:
    """`56 s`, `12 min`, `3 h 05 min`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def _percent(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.2f}"
