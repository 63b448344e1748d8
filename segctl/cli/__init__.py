"""The command line: parse, load, call one function, print. `main` is the single error door."""

import os
import sys
from typing import Annotated

import typer

from segctl import __version__
from segctl.cli import compare, data, distill, predict, presets, report, train
from segctl.cli import demo as story
from segctl.cli import eval as evaluation
from segctl.cli.output import out
from segctl.errors import SegctlError
from segctl.runtime.launcher import reporting_errors

app = typer.Typer(
    name="segctl",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train, distil and evaluate semantic-segmentation models.",
)
app.add_typer(data.app, name="data")
app.add_typer(presets.app, name="presets")
app.command()(train.train)
app.command()(distill.distill)
app.command()(compare.compare)
app.command("eval")(evaluation.evaluate)
app.command()(predict.predict)
app.command()(report.report)
app.command()(story.demo)


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


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong input, 3 a check found problems, 130 Ctrl-C."""
    # Before torch is loaded: threads that spin while they wait make a step ten times slower when any other process,
    # such as a loader worker, needs one of the cores.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    arguments = sys.argv[1:] if argv is None else argv
    outer, out.arguments = out.arguments, arguments
    try:
        with reporting_errors():
            app(args=arguments, prog_name="segctl")
    except SegctlError as error:
        out.error(error)
        return error.exit_code
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    finally:
        out.arguments = outer
    return 0
