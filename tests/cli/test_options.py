"""The options of `train` and `distill` as one object."""

from dataclasses import fields
from pathlib import Path

import pytest
import typer
from toy import toy_run
from typer.testing import CliRunner

from segctl.cli.options import RunOptions, with_run_options
from segctl.cli.train import default_processes
from segctl.commands import RUNS_ROOT


def filled(arguments: list[str], *, without: tuple[str, ...] = ()) -> RunOptions:
    """What a command gets for these arguments."""
    received: list[RunOptions] = []
    app = typer.Typer()
    app.command()(with_run_options(RunOptions, without=without)(received.append))
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == 0, found.output
    return received[0]


def test_a_command_gets_every_option_by_name() -> None:
    options = filled(["--preset", "p", "--method", "kd", "--teacher", "t", "--set", "a=1", "--set", "b=2", "--processes", "3"])
    assert (options.preset, options.method, options.teacher, options.processes) == ("p", "kd", [Path("t")], 3)
    assert list(options.set_ or []) == ["a=1", "b=2"]
    assert (options.runs_root, options.resume, options.extend_to) == (RUNS_ROOT, False, None)


def test_each_field_has_an_option_unless_it_is_left_out() -> None:
    app = typer.Typer()
    app.command()(
        with_run_options(RunOptions, without=("method", "teacher", "teacher_preset", "trust_program"))(lambda options: None)
    )
    offered = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).output
    for field in fields(RunOptions):
        option = f"--{field.name.strip('_').replace('_', '-')} "
        assert (option in offered) == (field.name not in ("method", "teacher", "teacher_preset", "trust_program")), option


@pytest.mark.parametrize(
    ("gpus", "batch", "given", "expected"),
    [
        (0, 8, [], 1),
        (1, 8, [], 1),
        (4, 8, [], 4),
        (3, 8, [], 2),
        (8, 6, [], 6),
        (5, 7, [], 1),
        (4, 8, ["--device", "cuda"], 4),
        (4, 8, ["--device", "cuda:1"], 1),
        (4, 8, ["--device", "cpu"], 1),
    ],
)
def test_there_is_a_process_for_each_gpu_that_the_batch_divides_by(
    gpus: int, batch: int, given: list[str], expected: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("segctl.runtime.device.visible_gpus", lambda: gpus)
    run = toy_run(train={"batch_size": batch})
    assert default_processes(run, "toy", filled(["--preset", "p", *given])) == expected
    announced = f"{gpus} GPUs are visible: " in capsys.readouterr().err
    assert announced is (gpus > 1 and given in ([], ["--device", "cuda"]))


def test_a_run_goes_on_with_as_many_processes_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "environment.json").write_text('{"processes": 2}', encoding="utf-8")
    options = filled(["--resume", "--run", str(tmp_path)])
    for gpus, expected in ((4, 2), (2, 2), (1, 1)):
        monkeypatch.setattr("segctl.runtime.device.visible_gpus", lambda gpus=gpus: gpus)
        assert default_processes(toy_run(), "toy", options) == expected
