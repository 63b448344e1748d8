"""The only printer: results to stdout, everything else to stderr, silent unless rank 0."""

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from segctl.errors import PeerError, ProcessError, SegctlError, StoppedError

Advance = Callable[[int, int], None]
"""Progress of long work: called with (done, total)."""

PLAIN_LINE_EVERY_S = 10.0
PIPE_WIDTH = 160


class Output:
    """Prints for people, or JSON for programs. Rank 0 speaks, the others are silent, except for errors.

    `arguments` is the command line that is being answered.
    """

    def __init__(self) -> None:
        self.arguments: list[str] = []
        self.speaks = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"

    def _console(self, *, stderr: bool = False) -> Console:
        stream = sys.stderr if stderr else sys.stdout
        return Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False, soft_wrap=True)

    def result(self, text: str) -> None:
        """One line or block that the command was asked for."""
        if self.speaks:
            self._console().print(Text(text))

    def json(self, value: Any) -> None:
        """The machine-readable form of a result."""
        if self.speaks:
            sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
        """A table; every column but the first is right-aligned when all its cells look like numbers."""
        if not self.speaks:
            return
        table = Table(
            title=escape(title), title_justify="left", title_style="bold", header_style="bold", box=None, pad_edge=False
        )
        for index, name in enumerate(columns):
            numeric = index > 0 and all(_is_number(row[index]) for row in rows)
            table.add_column(escape(name), justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        console = self._console()
        console.print(table)
        for note in notes:
            console.print(Text(note, style="dim"))

    def note(self, text: str) -> None:
        """What was decided or done, on stderr."""
        if self.speaks:
            self._console(stderr=True).print(Text(text))

    def warn(self, text: str) -> None:
        """Something the person should look at, on stderr."""
        if self.speaks:
            self._console(stderr=True).print(Text.assemble(("warning: ", "yellow"), text))

    def error(self, error: SegctlError) -> None:
        """The sentence of an error and its next step, on stderr, from any rank; what all ranks say, from rank 0."""
        if not self.speaks and isinstance(error, PeerError | StoppedError):
            return
        lines = [Text.assemble(("error: ", "bold red"), error.message)]
        if error.hint:
            lines.append(Text.assemble(("next:  ", "bold"), error.hint))
        console = self._console(stderr=True)
        if isinstance(error, ProcessError) and error.trace:
            console.print(Text(error.trace))
        for line in lines:
            console.print(line)

    @contextmanager
    def progress(self, label: str) -> Iterator[Advance]:
        """A progress bar on a terminal, and a plain line now and then elsewhere."""
        if not self.speaks:
            yield lambda done, total: None
        elif sys.stderr.isatty():
            with self.bar() as bar:
                task = bar.add_task(escape(label), total=None)
                yield lambda done, total: bar.update(task, completed=done, total=total)
        else:
            yield _PlainProgress(label, self.note)

    @contextmanager
    def transfer(self) -> Iterator[Callable[[str, int, int], None]]:
        """Progress of downloads, called with (file, bytes done, bytes in all or 0): a bar, or a line now and then."""
        if not self.speaks:
            yield lambda name, done, total: None
        elif sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
            )
            with Progress(*columns, console=self._console(stderr=True), transient=True) as bar:
                yield _TransferBar(bar)
        else:
            yield _PlainTransfer(self.note)

    def bar(self, *, detail: bool = False) -> Progress:
        """A rich progress bar on stderr; `detail` adds a column for a task's `detail` field."""
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        ]
        if detail:
            columns.append(TextColumn("{task.fields[detail]}"))
        # A table printed meanwhile moves above the bar, unless it goes to a file.
        redirect = sys.stdout.isatty()
        return Progress(*columns, console=self._console(stderr=True), transient=True, redirect_stdout=redirect)


class _PlainProgress:
    """A line when the work is done, and every few seconds before that."""

    def __init__(self, label: str, say: Callable[[str], None]) -> None:
        self.label, self.say, self.last, self.said = label, say, time.monotonic(), ""

    def __call__(self, done: int, total: int) -> None:
        now, line = time.monotonic(), f"{self.label} {done}/{total}"
        if line != self.said and (done >= total or now - self.last >= PLAIN_LINE_EVERY_S):
            self.say(line)
            self.last, self.said = now, line


class _TransferBar:
    """One line of a rich bar for each file."""

    def __init__(self, bar: Progress) -> None:
        self.bar = bar
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.bar.add_task(escape(name), total=None)
        self.bar.update(self.tasks[name], completed=done, total=total or None)


class _PlainTransfer:
    """A line when a file is done, and every few seconds before that, with the rate since its first byte and the time left."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.last, self.name = say, time.monotonic(), ""

    def __call__(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        if name != self.name:
            self.name, self.began, self.first = name, now, done
        if (total and done >= total) or now - self.last >= PLAIN_LINE_EVERY_S:
            self.say(f"downloading {name} {transfer_words(done, total, done - self.first, now - self.began)}")
            self.last = now


def transfer_words(done: int, total: int, gained: int, seconds: float) -> str:
    """How far a download is: `gained` of its `done` bytes came in the last `seconds`."""
    rate = gained / seconds if seconds > 0 else 0.0
    words = f"{done / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total else " MB")
    if rate > 0:
        words += f", {rate / 1e6:.1f} MB/s"
        words += f", {math.ceil((total - done) / rate / 60)} min left" if total > done else ""
    return words


def _is_number(cell: str) -> bool:
    plain = cell.replace(",", "").replace("%", "").replace("±", " ").split()
    return cell in ("", "n/a", "–", "-") or (bool(plain) and all(_parses(part) for part in plain))


def _parses(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


out = Output()
