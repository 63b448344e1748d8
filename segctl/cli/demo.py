"""`segctl demo`: the whole story on the embedded `shapes` dataset, as commands one could type."""

import shlex
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from segctl.cli.output import out
from segctl.errors import SegctlError
from segctl.runtime.cores import THREADS_VARIABLE, core_count
from segctl.runtime.parent import start_segctl

TEACHER, STUDENT = "shapes-teacher", "shapes-student"
CLOSING = (
    "Only 30 of the 240 training pictures have a label. The undistilled student learnt from those 30 alone; the distilled one "
    "also learnt what its teacher says about the other 210."
)


def demo(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where data, runs and report go.")] = Path("segctl-demo"),
    steps: Annotated[
        int | None, typer.Option("--steps", metavar="N", min=1, max=10**9, help="Number of steps of each run, for a quick look.")
    ] = None,
) -> None:
    """Prepare the dataset shapes, train a teacher and a student with and without it, then score, export, time and report."""
    began = time.monotonic()
    for together in _story(folder, steps):
        if len(together) == 2 and core_count() > 1:
            with _beside(together[1]):
                _run(together[0])
            continue
        for command in together:
            _run(command)
    if steps is None:
        out.note(f"\n{CLOSING}")
    strip = folder / "report_files" / "first-row.png"
    if strip.is_file():
        out.result(f"one picture as all three networks segment it: {strip}")
    out.result(f"the demo took {time.monotonic() - began:.0f} s; open {folder / 'report.html'}")


def _run(command: list[str]) -> None:
    from segctl.cli import main

    out.note(f"\n$ segctl {shlex.join(command)}")
    code = main(command)
    if code:
        raise typer.Exit(code)


@contextmanager
def _beside(command: list[str]) -> Iterator[None]:
    """Run one command in a process of its own beside those of the block, each with half of the threads; wait for its end.

    Raises SegctlError with what it printed, if it failed.  If the block fails, the command is stopped, and can be resumed.
    """
    import torch

    threads = torch.get_num_threads()
    half = max(1, threads // 2)
    out.note(f"\n$ segctl {shlex.join(command)} &")
    out.note("this one and the next train at the same time, each on half of the cores")
    with tempfile.TemporaryFile() as notes:
        child = start_segctl(command, {THREADS_VARIABLE: str(half)}, notes)
        torch.set_num_threads(half)
        try:
            yield
            if child.poll() is None:
                out.note("waiting for the one beside it")
            code = child.wait()
        finally:
            torch.set_num_threads(threads)
            child.terminate()
            child.wait()
        if code:
            notes.seek(0)
            printed = notes.read().decode(errors="replace").strip()
            raise SegctlError(f"`segctl {shlex.join(command)}` ended with exit code {code}; it printed:\n{printed}")


def _story(folder: Path, steps: int | None) -> list[list[list[str]]]:
    """What is left to run, in order: commands, or two that do not need each other and train at the same time.

    Finished runs are skipped, and a stopped one is resumed.
    """
    from segctl.runs import RunFolder

    data, runs = ["--data-root", str(folder / "data")], folder / "runs"
    length = [] if steps is None else ["--steps", str(steps)]
    teacher, alone, student = (runs / name for name in ("teacher", "student", "student-jml"))
    networks = [str(teacher), str(alone), str(student)]

    def left(run: Path, *command: str) -> list[list[str]]:
        if RunFolder(run).finished:
            return []
        return [[*command, *length, "--run", str(run), *(["--resume"] if run.exists() else []), *data]]

    return [
        [["data", "prepare", "shapes", *data]],
        [
            *left(teacher, "train", "--preset", TEACHER),
            *left(alone, "distill", "--preset", STUDENT, "--method", "none"),
        ],
        left(student, "distill", "--preset", STUDENT, "--method", "jml", "--teacher", str(teacher)),
        *[[["eval", run, *data]] for run in networks],
        [] if (student / "export" / "model.onnx").is_file() else [["export", str(student), *data]],
        [["bench", str(teacher), str(student), "--no-compile", *data]],
        [["report", *networks, "-o", str(folder / "report.md"), *data]],
    ]
