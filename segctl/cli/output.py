"""The only printer: results go to stdout, everything else to stderr; only rank 0 prints."""

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich import progress as rich_progress
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from segctl.cli.layout import lay_out, wrap
from segctl.errors import NEWLINE, PeerError, ProcessError, SegctlError, StoppedError, printable
from segctl.files import Progress

PLAIN_LINE_EVERY_S = 10.0
PIPE_WIDTH = 160
"""Width of tables in a file or a pipe."""

MIN_WIDTH = 20


class Printer:
    """Prints text for people or JSON for programs. Rank 0 prints; the other ranks print errors only.

    arguments: the command line that is running.
    """

    def __init__(self) -> None:
        self.arguments: list[str] = []
        self.speaks = os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0"

    def _width(self, *, stderr: bool = False) -> int | None:
        """The width that COLUMNS or the terminal gives; None for a file or a pipe, where long lines are easier to search."""
        stream = sys.stderr if stderr else sys.stdout
        if os.environ.get("COLUMNS", "").isdigit() or stream.isatty():
            return max(MIN_WIDTH, shutil.get_terminal_size().columns)
        return None

    def _console(self, *, stderr: bool = False) -> Console:
        stream = sys.stderr if stderr else sys.stdout
        return Console(file=stream, width=self._width(stderr=stderr) or PIPE_WIDTH, highlight=False, soft_wrap=True)

    def result(self, text: str) -> None:
        """A line or block of the command's result, on stdout."""
        if self.speaks:
            self._console().print(_text(text))

    def json(self, value: Any) -> None:
        """The result as JSON, on stdout."""
        if self.speaks:
            # JSON escapes what steers a terminal, except for the control characters above 127.
            sys.stdout.write(_json_text(json.dumps(value, indent=2, ensure_ascii=False)) + "\n")

    def table(
        self,
        title: str,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        notes: Sequence[str] = (),
        *,
        drop: Sequence[str] = (),
    ) -> None:
        """A table that fits the terminal without cutting a word; columns of numbers are right-aligned.

        drop: columns that may be left out on a narrow terminal, the least valuable first (see layout.py).
        """
        if not self.speaks:
            return
        console = self._console()
        title, columns, notes = printable(title), [*map(printable, columns)], [*map(printable, notes)]
        found = lay_out(columns, [[*map(printable, row)] for row in rows], self._width() or PIPE_WIDTH, drop)
        for line in self._wrapped(title):
            console.print(Text(line, style="bold"))
        for line in found.header:
            console.print(Text(line, style="bold"))
        for line in found.body:
            console.print(Text(line))
        narrow = [f"too narrow for {', '.join(found.left_out)}: widen the terminal to see more"] if found.left_out else []
        for note in [*notes, *narrow]:
            for line in self._wrapped(note):
                console.print(Text(line, style="dim"))

    def values(self, title: str, pairs: Sequence[tuple[str, str]]) -> None:
        """Names and values on one line, or on several where they do not fit; a name stays beside its value."""
        if not self.speaks:
            return
        width = self._width() or PIPE_WIDTH
        line = f"{title}:"
        for index, (name, value) in enumerate(pairs):
            pair = printable(f"{name} {value}")
            gap = "   " if index else " "
            if len(line) + len(gap) + len(pair) > width:
                self.result(line)
                line, gap = " ", " "
            line = f"{line}{gap}{pair}"
        self.result(line)

    def note(self, text: str) -> None:
        """What the command decided or did, on stderr."""
        if self.speaks:
            self._console(stderr=True).print(_text(text))

    def note_of_any_rank(self, text: str) -> None:
        """What a process waits for before it has met rank 0, on stderr, from any rank."""
        self._console(stderr=True).print(_text(text))

    def warn(self, text: str) -> None:
        """What the user should look at, on stderr."""
        if self.speaks:
            self._sentence("warning: ", "yellow", text)

    def error(self, error: SegctlError) -> None:
        """An error and its next step, on stderr, from any rank; errors that all ranks have, from rank 0 only."""
        if not self.speaks and isinstance(error, PeerError | StoppedError):
            return
        console = self._console(stderr=True)
        if isinstance(error, ProcessError) and error.trace:
            console.print(_text(error.trace))
        self._sentence("error: ", "bold red", error.message)
        if error.hint:
            # Not wrapped: a hint may be a command to copy, which a line break of ours would split.
            console.print(Text.assemble(("next:  ", "bold"), printable(error.hint, keep="\n")))

    def _sentence(self, head: str, style: str, text: str) -> None:
        """Text on stderr behind a coloured head; on a terminal its lines break at spaces."""
        lines = f"{head}{printable(text, keep=NEWLINE)}".split(NEWLINE)
        first, *others = [piece for line in lines for piece in self._wrapped(line, stderr=True)]
        console = self._console(stderr=True)
        console.print(Text.assemble((first[: len(head)], style), first[len(head) :]))
        for line in others:
            console.print(Text(line))

    def _wrapped(self, line: str, *, stderr: bool = False) -> list[str]:
        """A sentence in lines that fit the terminal; whole in a file or a pipe."""
        width = self._width(stderr=stderr)
        return [line] if width is None else wrap(line, width)

    @contextmanager
    def progress(self, label: str) -> Iterator[Progress]:
        """Shows progress: a bar on a terminal, elsewhere a line every few seconds."""
        if not self.speaks:
            yield lambda done, total: None
        elif sys.stderr.isatty():
            with self.bar() as bar:
                task = bar.add_task(escape(printable(label)), total=None)
                yield lambda done, total: bar.update(task, completed=done, total=total)
        else:
            yield _PlainProgress(label, self.note)

    @contextmanager
    def transfer(self) -> Iterator[Callable[[str, int, int], None]]:
        """Shows the progress of downloads: a bar per file, or a line every few seconds.

        Yields a function of (file, bytes done, bytes in all); the last is 0 where the server does not say.
        """
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
            with rich_progress.Progress(*columns, console=self._console(stderr=True), transient=True) as bar:
                yield _TransferBar(bar)
        else:
            yield _PlainTransfer(self.note)

    def bar(self, *, detail: bool = False) -> rich_progress.Progress:
        """A rich progress bar on stderr. detail: add a column for the field `detail` of a task."""
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        ]
        if detail:
            columns.append(TextColumn("{task.fields[detail]}"))
        # On a terminal, a table printed while the bar runs must appear above it; in a file it must stay on stdout.
        redirect = sys.stdout.isatty()
        return rich_progress.Progress(*columns, console=self._console(stderr=True), transient=True, redirect_stdout=redirect)


def _text(text: str) -> Text:
    """Text of one or more lines, without characters that control a terminal."""
    return Text(printable(text, keep="\n\t"))


def _json_text(text: str) -> str:
    """JSON of the same value in which every character that steers a terminal is escaped."""
    if printable(text, keep="\n") == text:
        return text
    return "".join(
        character if character == "\n" or printable(character) == character else json.dumps(character)[1:-1] for character in text
    )


class _PlainProgress:
    """Prints a line every few seconds and one at the end."""

    def __init__(self, label: str, say: Callable[[str], None]) -> None:
        self.label, self.say, self.last, self.said = label, say, time.monotonic(), ""

    def __call__(self, done: int, total: int) -> None:
        now, line = time.monotonic(), f"{self.label} {done}/{total}"
        if line != self.said and (done >= total or now - self.last >= PLAIN_LINE_EVERY_S):
            self.say(line)
            self.last, self.said = now, line


class _TransferBar:
    """One line of a rich bar per file."""

    def __init__(self, bar: rich_progress.Progress) -> None:
        self.bar = bar
        self.tasks: dict[str, TaskID] = {}

    def __call__(self, name: str, done: int, total: int) -> None:
        if name not in self.tasks:
            self.tasks[name] = self.bar.add_task(escape(printable(name)), total=None)
        self.bar.update(self.tasks[name], completed=done, total=total or None)


class _PlainTransfer:
    """Prints a line every few seconds and one at the end of a file, with the rate since its first byte and the time left."""

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
    """The state of a download in words. gained: how many of its `done` bytes came in the last `seconds`."""
    rate = gained / seconds if seconds > 0 else 0.0
    words = f"{done / 1e6:.1f}" + (f" of {total / 1e6:.1f} MB" if total else " MB")
    if rate > 0:
        words += f", {rate / 1e6:.1f} MB/s"
        words += f", {math.ceil((total - done) / rate / 60)} min left" if total > done else ""
    return words


out = Printer()
