"""Tables say something in every cell and set off the best."""

from dataclasses import replace
from pathlib import Path

import pytest

from segctl.report.content import UNDEFINED
from segctl.report.groups import Spread, comparisons_of, methods_side_by_side
from segctl.report.tables import (
    FINE_GRAINED,
    SIDE_BY_SIDE_COLUMNS,
    class_tables,
    evaluations_table,
    provenance_tables,
    published_table,
    runs_table,
    score_text,
    scores_table,
    side_by_side_table,
    status,
)
from tests.report.run_folders import ENSEMBLE, group_of


def as_dicts(table):
    return [dict(zip(table.columns, (cell.text for cell in row), strict=True)) for row in table.rows]


def no_interval(group):
    return "n/a"


def every_table(read):
    runs = list(read.values())
    for comparison in comparisons_of(runs):
        yield from (scores_table(comparison, names) for names in FINE_GRAINED)
        yield from class_tables(comparison)
        yield published_table(comparison.groups, no_interval)
    yield from (runs_table(runs), evaluations_table(runs, None), *provenance_tables(runs))


def test_no_cell_is_blank_or_not_a_number(read):
    for table in every_table(read):
        for row in table.rows:
            assert len(row) == len(table.columns)
            assert all(cell.text and cell.text.lower() not in ("nan", "none ± none") for cell in row)


@pytest.mark.parametrize(
    ("found", "text"),
    [(Spread(47.123, 0.3149, 3), "47.12 ± 0.31"), (Spread(47.125, None, 1), "47.12"), (Spread(None, None, 0), "n/a")],
)
def test_a_score_is_written_with_its_spread(found, text):
    assert score_text(found) == text


def test_what_was_run(read):
    row = as_dicts(runs_table([read["jml-s1"]]))[0]
    assert row == {
        "run": "`jml-s1`", "preset": "camvid-psp18-scratch", "recipe": "scratch", "method": "jml",
        "teacher": "camvid-dl101-scratch", "status": "finished", "seed": "1", "steps": "800", "batch": "8",
        "parameters": "12,640,235", "GFLOP": "71.49", "s/step": "0.121", "precision": "bf16", "device": "NVIDIA A100-SXM4-40GB",
    }  # fmt: skip


def test_a_run_of_an_older_segctl_shows_the_parameters_it_kept_and_no_gflop(read):
    older = replace(read["jml-s1"], environment={**read["jml-s1"].environment, "cost": None})
    row = as_dicts(runs_table([older]))[0]
    assert (row["parameters"], row["GFLOP"]) == ("12,788,950", "n/a")


@pytest.mark.parametrize(("gflop", "text"), [(5553.86, "5,554"), (867.58, "867.6"), (24.366, "24.37"), (0.0561, "0.0561")])
def test_gflop_are_written_with_four_digits_at_most(read, gflop, text):
    run = replace(read["jml-s1"], environment={"cost": {"parameters": 1, "gflop": gflop, "size": [1, 1]}})
    assert as_dicts(runs_table([run]))[0]["GFLOP"] == text


def test_status_tells_unfinished_and_unscored_runs(read):
    assert [status(read[name]) for name in ("none-s0", "stopped", "unscored")] == [
        "finished",
        "unfinished, step 266",
        "finished, not evaluated",
    ]


def test_provenance_has_the_teachers_hash_and_score(read):
    row = as_dicts(provenance_tables([read["jml-s0"]])[1])[0]
    assert row["teacher's sha256"] == "`9b1f0c5d7e3a`"
    assert row["teacher's mIoU_D"] == "52.31 on 32 images"
    assert row["data fingerprint"] == "`3f2a9c61d0be`"
    assert row["weights kept"] == "step 800"


def test_provenance_names_every_teacher_of_an_ensemble_with_its_weight_hash_and_score(read):
    taught = replace(read["jml-s0"], environment={**read["jml-s0"].environment, "teacher": ENSEMBLE})
    row = as_dicts(provenance_tables([taught])[1])[0]
    assert row["teacher"] == "runs/a + 2.5·runs/b"
    assert row["teacher's sha256"] == "`111111111111` + `222222222222`"
    assert row["teacher's mIoU_D"] == "54.00 on 32 images (52.00 and 53.00 alone)"


def test_a_run_without_environment_says_so_in_every_cell(read):
    bare = replace(read["none-s0"], environment={})
    assert as_dicts(runs_table([bare]))[0]["device"] == "n/a"
    assert as_dicts(provenance_tables([bare])[0])[0]["torch"] == "n/a"


def test_bold_is_what_is_better_beyond_the_noise_of_seeds(tmp_path):
    """Gains of 1.0, 1.1 and 0.9 exclude 0; gains of -1, 0 and 4 do not; losses are never bold."""
    scores = {"none": [50.0, 51.0, 52.0], "kd": [51.0, 52.1, 52.9], "jml": [49.0, 51.0, 56.0], "dist": [49.0, 50.1, 50.9]}
    groups = group_of(tmp_path, scores)
    bold = {
        group.method: row[1].best
        for group, row in zip(groups, scores_table(as_comparison(groups), ("mIoU_D",)).rows, strict=True)
    }
    assert bold == {"none": False, "kd": True, "jml": False, "dist": False}
    bold = {row[0].text: row[1].best for row in published_table(groups, no_interval).rows if row[1].text != "not run"}
    assert [name for name, best in bold.items() if best] == ["kd"]


def as_comparison(groups):
    (found,) = comparisons_of([run for group in groups for run in group.runs])
    return found


def test_a_single_seed_is_never_bold(tmp_path):
    groups = group_of(tmp_path, {"none": [50.0], "kd": [90.0]})
    tables = [scores_table(as_comparison(groups), ("mIoU_D",)), published_table(groups, no_interval)]
    tables += class_tables(as_comparison(groups))
    assert not any(cell.best for table in tables for row in table.rows for cell in row)


def test_nothing_is_best_where_there_is_one(read):
    (alone,) = comparisons_of([read["none-s0"]])
    assert not any(cell.best for row in scores_table(alone, ("mIoU_D",)).rows for cell in row)


def test_scores_of_several_seeds_say_how_many(read):
    camvid = comparisons_of(list(read.values()))[0]
    assert [row[0].text for row in scores_table(camvid, ("Acc",)).rows] == [
        "camvid-psp18-scratch · none (n = 2)",
        "camvid-psp18-scratch · jml (n = 2)",
    ]


def test_a_class_nobody_saw_is_undefined(read):
    city = comparisons_of(list(read.values()))[1]
    rows = {row["class"]: row for row in as_dicts(class_tables(city)[0])}
    assert rows["pole"]["cityscapes-psp18 · none"] == "n/a"
    assert rows["pole"]["images"] == "0"
    assert rows["sky"]["images"] == "5"


def test_many_groups_make_several_tables_of_classes(read):
    (found,) = comparisons_of([read["none-s0"]])
    many = replace(found, groups=found.groups * 8)
    assert [len(table.columns) for table in class_tables(many)] == [8, 4]


def test_published_numbers_stand_beside_ours_with_source_and_caveats(read):
    rows = {
        row["method"]: row
        for row in as_dicts(published_table(comparisons_of([read["city-none"], read["city-jml"]])[0].groups, no_interval))
    }
    assert rows["none"]["mIoU_D, ours"].endswith(" †")
    assert (rows["none"]["published"], rows["none"]["its recipe"]) == ("72.55", "cirkd")
    assert rows["none"]["caveats"] == "other recipe than ours"
    assert rows["dist"]["mIoU_D, ours"] == "not run"
    assert rows["dist"]["caveats"] == "users reproduced 75.4 to 75.5; other recipe than ours"
    assert rows["jml"]["source"] == "zifuwanggg/JDTLosses README.md at 32b3f23"
    assert rows["jml"]["caveats"].startswith("the table is older than any training script there, so its recipe is not known")
    assert rows["jml"]["gain over none"] == "n/a"


def test_without_published_numbers_there_are_no_columns_for_them(read):
    table = published_table(comparisons_of([read["none-s0"], read["jml-s0"]])[0].groups, no_interval)
    assert table.columns[-1] == "steps × batch"
    assert table.rows[1][4].text.startswith("+")


def test_columns_of_numbers_are_known(read):
    table = runs_table(list(read.values()))
    right = [name for name, numeric in zip(table.columns, table.numeric, strict=True) if numeric]
    assert right == ["seed", "steps", "batch", "parameters", "GFLOP", "s/step"]


def test_versions_are_words(read):
    assert not any(provenance_tables(list(read.values()))[0].numeric)


def test_a_run_without_a_teacher_says_none(read):
    row = as_dicts(provenance_tables([read["none-s0"]])[1])[0]
    assert (row["teacher"], row["teacher's sha256"], row["teacher's mIoU_D"]) == ("none", "–", "–")


def test_evaluations_can_be_of_one_split(read):
    assert evaluations_table(list(read.values()), "test").rows == ()
    row = as_dicts(evaluations_table([read["none-s0"]], "val"))[0]
    assert row["protocol"] == "whole image, single scale, no flip"
    assert row["predictions outside the classes"] == "0"


def test_a_row_says_score_difference_and_cost(tmp_path: Path) -> None:
    table = side_by_side_table(group_of(tmp_path, {"none": [50.0, 60.0], "kd": [51.0, 62.0]}))
    assert table.columns == SIDE_BY_SIDE_COLUMNS
    rows = [[cell.text for cell in row] for row in table.rows]
    assert rows == [
        ["none", "2", "55.00 ± 7.07", "–", "–", "0.1", "1.00", "1,235", "12,640,235", "71.49"],
        ["kd", "2", "56.50 ± 7.78", "+1.50", "[-4.85, +7.85]", "0.3", "3.00", "1,235", "12,640,235", "71.49"],
    ]


def test_groups_of_other_settings_stand_apart(tmp_path: Path) -> None:
    groups = group_of(tmp_path, {"none": [50.0], "kd": [51.0]})
    groups += group_of(tmp_path, {"jml": [51.0]}, ("optim.lr=0.01",))
    assert [[group.method for group in members] for members in methods_side_by_side(groups)] == [["none", "kd"]]


def test_without_the_undistilled_student_there_is_nothing_to_subtract(tmp_path: Path) -> None:
    groups = group_of(tmp_path, {"kd": [51.0], "jml": [52.0]})
    assert methods_side_by_side(groups) == []
    assert [row[3].text for row in side_by_side_table(groups).rows] == [UNDEFINED, UNDEFINED]
