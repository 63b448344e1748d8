"""The table of settings that cannot change a number, row by row, as each of its readers takes it."""

from pathlib import Path
from typing import Any

import pytest

from segctl.errors import InputError
from segctl.files import write_yaml
from segctl.report.collect import read_run
from segctl.report.groups import grouped
from segctl.report.published import preset_changes
from segctl.runs import RunFolder
from segctl.schema.load import load_preset
from segctl.schema.run import DistillRun, TrainRun
from segctl.schema.same_run import TABLE, changes, conflicts, group_settings, rounding_changes
from segctl.train.compare import Job, require_fitting
from tests.report.run_folders import TEACHER, Making, make_run

PRESET = "camvid-psp18-scratch"
FIXED = ("data.scale=[1, 1]",)
"""A teacher's cache wants views of one scale."""
OTHER = {
    "data.workers": "7",
    "teacher.cache": "true",
    "teacher.overlap": "true",
    "train.activation_checkpointing": "true",
    "train.checkpoint_every": "3",
    "train.checkpoint_minutes": "1.5",
    "train.validate_every": "7",
    "train.select_by": "mIoU_C",
    "published": "[{method: none, value: 50, source: a paper, recipe: jml}]",
    "train.compile": "true",
    "train.deterministic": "true",
    "train.precision": "bf16",
    "train.accumulate": "auto",
    "train.seed": "5",
}
"""Another value of every setting in the table."""
WITHIN_A_RUN = [row.path for row in TABLE if row.within_a_run]


def run_with(*changed: str) -> TrainRun:
    return load_preset(PRESET, [*FIXED, *changed])


def other(path: str) -> str:
    return f"{path}={OTHER[path]}"


def job_of(stored: TrainRun, asked: TrainRun, folder: Path) -> Job:
    """A job in whose place a run lies already."""
    folder.mkdir()
    write_yaml(folder / "run.yaml", stored.model_dump(mode="json"))
    (folder / "environment.json").write_text("{}")
    assert isinstance(asked, DistillRun)
    return Job("kd", asked, RunFolder(folder))


def test_every_row_is_tried_here_and_is_a_setting() -> None:
    assert [row.path for row in TABLE] == list(OTHER)
    for path in OTHER:
        assert [change.path for change in changes(run_with(), run_with(other(path)))] == [path]


@pytest.mark.parametrize("path", WITHIN_A_RUN)
def test_resuming_and_comparing_accept_it(path: str, tmp_path: Path) -> None:
    # A run stores the precision that it had; the preset that is asked for says auto.
    stored, asked = (run_with(other(path)), run_with()) if path == "train.precision" else (run_with(), run_with(other(path)))
    assert conflicts(stored, asked) == []
    require_fitting(job_of(stored, asked, tmp_path / "run"), None)


@pytest.mark.parametrize("path", ["train.seed", "train.deterministic", "train.steps", "optim.lr", "data.flip", "name"])
def test_resuming_and_comparing_refuse_what_a_run_keeps_from_its_first_step(path: str, tmp_path: Path) -> None:
    values: dict[str, Any] = OTHER | {"train.steps": "9", "optim.lr": "0.03", "data.flip": "0.25", "name": "mine"}
    stored, asked = run_with(), run_with(f"{path}={values[path]}")
    assert [change.path for change in conflicts(stored, asked)] == [path]
    with pytest.raises(InputError, match=f"was run with other settings: {path}: "):
        require_fitting(job_of(stored, asked, tmp_path / "run"), None)


@pytest.mark.parametrize("path", OTHER)
def test_the_report_takes_runs_that_differ_in_it_for_one_group(path: str, tmp_path: Path) -> None:
    if path == "train.precision":  # a finished run stores the precision that it had, and two of them are two networks
        assert group_settings(run_with("train.precision=fp32")) != group_settings(run_with("train.precision=bf16"))
        return
    if path == "train.accumulate":  # likewise: batch norm sees other images
        assert group_settings(run_with("train.accumulate=1")) != group_settings(run_with("train.accumulate=2"))
        return
    making = [
        Making(method="kd", overrides=tuple(extra), teacher=TEACHER, split=None) for extra in (FIXED, (*FIXED, other(path)))
    ]
    runs = [read_run(RunFolder(make_run(tmp_path / f"run{index}", each))) for index, each in enumerate(making)]
    assert len(grouped(runs)) == 1


@pytest.mark.parametrize("path", OTHER)
def test_the_report_does_not_call_it_a_change_of_the_preset(path: str) -> None:
    assert preset_changes(load_preset(PRESET, [other(path)] if path != "teacher.cache" else [])) == []
    assert len(preset_changes(run_with(other(path)))) == 1  # data.scale


def test_validating_more_often_matters_where_the_best_weights_are_kept() -> None:
    best, often = run_with("train.select=best"), run_with("train.select=best", other("train.validate_every"))
    assert [change.path for change in conflicts(best, often)] == ["train.validate_every"]
    assert group_settings(best) != group_settings(often)
    stopping = run_with("train.early_stop.patience=3")
    often = run_with("train.early_stop.patience=3", other("train.validate_every"), other("train.select_by"))
    assert [change.path for change in conflicts(stopping, often)] == ["train.validate_every", "train.select_by"]


def test_two_numbers_of_micro_batches_conflict_where_both_are_named() -> None:
    stored, asked = run_with("train.accumulate=2"), run_with("train.accumulate=4")
    assert list(map(str, conflicts(stored, asked))) == ["train.accumulate: 2 -> 4"]


def test_two_precisions_conflict_where_both_are_named() -> None:
    stored, asked = run_with("train.precision=fp32"), run_with("train.precision=bf16")
    assert list(map(str, conflicts(stored, asked))) == ["train.precision: 'fp32' -> 'bf16'"]


def test_only_other_rounding_within_a_run_is_worth_a_note() -> None:
    asked = run_with(*map(other, OTHER))
    assert list(map(str, rounding_changes(run_with(), asked))) == ["train.compile: False -> True"]
