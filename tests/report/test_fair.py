"""The fair table: which groups stand in it, the paired difference by hand, and its cost columns."""

import json
import math
from pathlib import Path

import pytest

from segctl.report.collect import read_run
from segctl.report.fair import COLUMNS, fair_groups, fair_table, gain
from segctl.report.groups import Group, compare
from segctl.report.tables import UNDEFINED
from segctl.runs import RunFolder
from tests.report.run_folders import SHORT, TEACHER, Making, make_run


def group_of(tmp_path: Path, scores: dict[str, list[float]], overrides: tuple[str, ...] = ()) -> list[Group]:
    """Groups by method, one run for each score, which becomes its mIoU_D; seeds count from 0."""
    runs = []
    for method, values in scores.items():
        for seed, value in enumerate(values):
            teacher = None if method == "none" else TEACHER
            making = Making(method=method, seed=seed, overrides=(*SHORT, *overrides), teacher=teacher, images=2)
            path = make_run(tmp_path / f"{method}{seed}{len(overrides)}", making)
            put(path / "eval" / "val" / "scores.json", mIoU_D=value)
            put(path / "environment.json", seconds_per_step=0.1 if method == "none" else 0.3, peak_memory_mb=1234.6)
            runs.append(read_run(RunFolder(path)))
    return list(compare(runs)[0].groups)


def put(path: Path, **values: float) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_the_difference_is_paired_by_seed_with_students_interval(tmp_path: Path) -> None:
    none, kd = group_of(tmp_path, {"none": [50.0, 60.0, 55.0], "kd": [51.0, 63.0, 57.0]})
    found = gain(kd, none)
    assert found is not None
    # differences 1, 3, 2: mean 2, standard deviation 1; t for 2 degrees of freedom is 4.3027
    half = 4.30265 / math.sqrt(3)
    assert found == (pytest.approx(2.0), pytest.approx(2 - half, abs=1e-4), pytest.approx(2 + half, abs=1e-4), 3)


def test_one_seed_has_a_difference_and_no_interval(tmp_path: Path) -> None:
    none, kd = group_of(tmp_path, {"none": [50.0], "kd": [51.5]})
    assert gain(kd, none) == (pytest.approx(1.5), None, None, 1)


def test_only_seeds_in_common_are_paired(tmp_path: Path) -> None:
    none, kd = group_of(tmp_path, {"none": [50.0, 60.0], "kd": [51.0, 62.0, 99.0]})
    found = gain(kd, none)
    assert found is not None
    assert (found.mean, found.n) == (pytest.approx(1.5), 2)


def test_a_row_says_score_difference_and_cost(tmp_path: Path) -> None:
    table = fair_table(group_of(tmp_path, {"none": [50.0, 60.0], "kd": [51.0, 62.0]}))
    assert table.columns == COLUMNS
    rows = [[cell.text for cell in row] for row in table.rows]
    assert rows == [
        ["none", "2", "55.00 ± 7.07", "–", "–", "0.1", "1.00", "1,235"],
        ["kd", "2", "56.50 ± 7.78", "+1.50", "[-4.85, +7.85]", "0.3", "3.00", "1,235"],
    ]


def test_groups_of_other_settings_stand_apart(tmp_path: Path) -> None:
    groups = group_of(tmp_path, {"none": [50.0], "kd": [51.0]})
    groups += group_of(tmp_path, {"jml": [51.0]}, ("optim.lr=0.01",))
    assert [[group.method for group in members] for members in fair_groups(groups)] == [["none", "kd"]]


def test_without_the_undistilled_student_there_is_nothing_to_subtract(tmp_path: Path) -> None:
    groups = group_of(tmp_path, {"kd": [51.0], "jml": [52.0]})
    assert fair_groups(groups) == []
    assert [row[3].text for row in fair_table(groups).rows] == [UNDEFINED, UNDEFINED]
