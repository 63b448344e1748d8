"""`segctl demo`: the whole story on the embedded `shapes` dataset, as commands one could type."""

import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from segctl.cli.output import out

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
    from segctl.cli import main

    began = time.monotonic()
    for command in _commands(folder, steps):
        out.note(f"\n$ segctl {shlex.join(command)}")
        code = main(command)
        if code:
            raise typer.Exit(code)
    if steps is None:
        out.note(f"\n{CLOSING}")
    strip = folder / "report_files" / "first-row.png"
    if strip.is_file():
        out.result(f"one picture as all three networks segment it: {strip}")
    out.result(f"the demo took {time.monotonic() - began:.0f} s; open {folder / 'report.html'}")


def _commands(folder: Path, steps: int | None) -> list[list[str]]:
    """The commands that are left to run: finished runs are skipped, and a stopped one is resumed."""
    from segctl.runs import RunFolder

    data, runs = ["--data-root", str(folder / "data")], folder / "runs"
    length = [] if steps is None else ["--steps", str(steps)]
    story: list[tuple[str, list[str]]] = [
        ("teacher", ["train", "--preset", TEACHER]),
        ("student", ["distill", "--preset", STUDENT, "--method", "none"]),
        ("student-jml", ["distill", "--preset", STUDENT, "--method", "jml", "--teacher", str(runs / "teacher")]),
    ]
    commands = [["data", "prepare", "shapes", *data]]
    for name, command in story:
        run = RunFolder(runs / name)
        if not run.finished:
            resume = ["--resume"] if run.path.exists() else []
            commands.append([*command, *length, "--run", str(run.path), *resume, *data])
    commands += [["eval", str(runs / name), *data] for name, _ in story]
    student = runs / story[-1][0]
    if not (student / "export" / "model.onnx").is_file():
        commands.append(["export", str(student), *data])
    commands.append(["bench", str(runs / "teacher"), str(student), "--no-compile", *data])
    return [*commands, ["report", *(str(runs / name) for name, _ in story), "-o", str(folder / "report.md"), *data]]
