"""The display of a run while it trains: a progress bar on a terminal, else a plain line every few seconds."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.progress import Progress, TaskID

from segctl.cli.output import PLAIN_LINE_EVERY_S, out
from segctl.train.run_log import StepReport


class BarWatch:
    """A progress bar, with notes above it."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.tasks: dict[str, TaskID] = {}

    def note(self, text: str) -> None:
        self.bar.console.print(text, markup=False)

    def stepped(self, report: StepReport, steps: int) -> None:
        self._move("training", report.step, steps)
        self.bar.update(self.tasks["training"], detail=report.short())

    def advance(self, label: str, done: int, total: int) -> None:
        self._move(label, done, total)
        if done == total:
            self.bar.remove_task(self.tasks.pop(label))

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
        out.table(title, columns, rows, notes)

    def _move(self, label: str, done: int, total: int) -> None:
        if label not in self.tasks:
            self.tasks[label] = self.bar.add_task(label, total=total, detail="")
        self.bar.update(self.tasks[label], completed=done, total=total)


class LineWatch:
    """Plain lines, for logs and pipes: every few seconds, and at the last step."""

    def __init__(self) -> None:
        self.last = time.monotonic()
        self.began: dict[str, float] = {}

    def note(self, text: str) -> None:
        out.note(text)

    def stepped(self, report: StepReport, steps: int) -> None:
        if report.step == steps or time.monotonic() - self.last >= PLAIN_LINE_EVERY_S:
            out.note(report.line(steps))
            self.last = time.monotonic()

    def advance(self, label: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self.began.setdefault(label, now) >= PLAIN_LINE_EVERY_S:
            out.note(f"{label} {done}/{total}")
            self.began[label] = now
        if done == total:
            self.last = now
            del self.began[label]

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> None:
        out.table(title, columns, rows, notes)


@contextmanager
def watching() -> Iterator[BarWatch | LineWatch]:
    """The display that fits stderr."""
    if not sys.stderr.isatty() or not out.speaks:
        yield LineWatch()
        return
    with out.bar(detail=True) as bar:
        yield BarWatch(bar)
