"""The options of `train` and `distill` as one object."""

from dataclasses import fields
from pathlib import Path

import typer
from typer.testing import CliRunner

from segctl.cli.options import RunOptions, with_run_options
from segctl.commands import RUNS_ROOT


def filled(arguments: list[str], *, without: tuple[str, ...] = ()) -> RunOptions:
    """What a command gets for these arguments."""
    received: list[RunOptions] = []
    app = typer.Typer()
    app.command()(with_run_options(without=without)(received.append))
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    return received[0]


def test_a_command_gets_every_option_by_name() -> None:
    options = filled(["--preset", "p", "--method", "kd", "--teacher", "t", "--set", "a=1", "--set", "b=2", "--processes", "3"])
    assert (options.preset, options.method, options.teacher, options.processes) == ("p", "kd", Path("t"), 3)
    assert list(options.set_ or []) == ["a=1", "b=2"]
    assert (options.runs_root, options.resume, options.extend_to) == (RUNS_ROOT, False, None)


def test_each_field_has_an_option_unless_it_is_left_out() -> None:
    app = typer.Typer()
    app.command()(with_run_options(without=("method", "teacher", "teacher_preset", "trust_program"))(lambda options: None))
    offered = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    for field in fields(RunOptions):
        option = f"--{field.name.strip('_').replace('_', '-')} "
        assert (option in offered) == (field.name not in ("method", "teacher", "teacher_preset", "trust_program")), option
