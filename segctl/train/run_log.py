"""The logs of a run: train.log for people, log.jsonl for programs, and TensorBoard's event files on request."""

import json
import math
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from segctl.files import append_line, without_infinities, write_text
from segctl.runs import RunFolder
from segctl.train.trackers import Board, open_board
from segctl.train.watch import StepReport, Watch


class RunLog:
    """Writes log.jsonl and train.log, and passes everything on to the watch.

    writes: whether this process writes files; only the main process of a run does.
    """

    def __init__(self, folder: RunFolder, steps: int, watch: Watch, *, writes: bool = True) -> None:
        self.folder, self.steps, self.watch, self.writes = folder, steps, watch, writes
        self.board: Board | None = None

    def open_tensorboard(self, steps_taken: int = 0) -> None:
        """Write for TensorBoard too from now on, in a run that has taken `steps_taken` steps."""
        if self.writes:
            self.board = open_board(self.folder, steps_taken)

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

    def validated(self, step: int, scores: dict[str, float | None]) -> None:
        """Show and write the scores of a validation, in percent."""
        shown = "   ".join(f"{name} {_percent(scores[name])}" for name in ("mIoU_D", "mIoU_I", "mIoU_C"))
        self.note(f"validation after step {step}   {shown}")
        self.event("validation", {"step": step, "scores": scores})

    def event(self, kind: str, content: dict[str, Any]) -> None:
        """Write one line of log.jsonl, and its numbers for TensorBoard."""
        if not self.writes:
            return
        append_line(self.folder.log, _line({"event": kind, **content}))
        if self.board is not None:
            self.board.event(kind, content)


def _line(event: dict[str, Any]) -> str:
    return json.dumps(without_infinities(event), allow_nan=False)


def _percent(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{value:.2f}"
