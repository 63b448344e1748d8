"""The fair table: which groups stand in it, its gains and its cost columns."""

from pathlib import Path

from segctl.report.content import UNDEFINED
from segctl.report.fair import COLUMNS, fair_groups, fair_table
from tests.report.run_folders import group_of


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
