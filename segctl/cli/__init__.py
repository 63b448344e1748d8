"""The command line: parse, load, call one function, print. `main` is the single error door."""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

import typer

from segctl import __version__
from segctl.cli import compare, distill, predict, presets, pretrain, report, train
from segctl.cli import demo as story
from segctl.cli import eval as evaluation
from segctl.cli.data.commands import data_app
from segctl.cli.help import CONTEXT, PlainCommand, RootGroup
from segctl.cli.output import out
from segctl.cli.ship import bench, export, push
from segctl.errors import SegctlError, os_error_in_words
from segctl.runtime.cores import waiting_threads
from segctl.runtime.launcher import reporting_errors
from segctl.runtime.parent import end_with_parent

app = typer.Typer(
    name="segctl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    cls=RootGroup,
    context_settings=CONTEXT,
    help="Train, distil and evaluate semantic-segmentation models.",
)
app.add_typer(data_app, name="data")
app.add_typer(presets.presets_app, name="presets")
app.command(cls=PlainCommand)(train.train)
app.command(cls=distill.DistillCommand)(distill.distill)
app.command(cls=PlainCommand)(pretrain.pretrain)
app.command(cls=PlainCommand)(compare.compare)
app.command("eval", cls=PlainCommand)(evaluation.evaluate)
app.command(cls=PlainCommand)(predict.predict)
app.command(cls=PlainCommand)(export.export)
app.command(cls=PlainCommand)(push.push)
app.command(cls=PlainCommand)(report.report)
app.command("bench", cls=PlainCommand)(bench.bench_targets)
app.command(cls=PlainCommand)(story.demo)


def _print_version(wanted: bool) -> None:
    if wanted:
        out.result(f"segctl {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Train, distil and evaluate semantic-segmentation models."""


INTERRUPTED = 128 + signal.SIGINT


def _say_what_the_terminal_can() -> None:
    """Characters that the terminal's encoding lacks are replaced, and what goes to a closed stream is dropped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 (open as long as the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong input, 3 a check found problems, 130 Ctrl-C."""
    # Before torch is loaded.
    os.environ.update(waiting_threads())
    # On a Mac: an operation that Apple's GPU lacks is done on the CPU.
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    _say_what_the_terminal_can()
    arguments = sys.argv[1:] if argv is None else argv
    outer, out.arguments = out.arguments, arguments
    try:
        end_with_parent()
        with reporting_errors():
            app(args=arguments, prog_name="segctl")
    except SegctlError as error:
        out.error(error)
        return error.exit_code
    except OSError as error:
        found = os_error_in_words(error)
        out.error(found)
        return found.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    finally:
        out.arguments = outer
    return 0
