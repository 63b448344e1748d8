"""The gain over the undistilled student: paired by seed, computed by hand, and the same number in every table of a page."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from segctl.report import write_report
from segctl.report.collect import Run, read_run
from segctl.report.gains import COLUMN, gain, gain_notes
from segctl.report.groups import Group, comparisons_of
from segctl.runs import RunFolder
from tests.report.run_folders import SHORT, TEACHER, Making, group_of, make_run


def groups_of(runs: list[Run]) -> tuple[Group, ...]:
    (found,) = comparisons_of(runs)
    return found.groups


def test_the_difference_is_paired_by_seed_with_students_interval(tmp_path: Path) -> None:
    groups = group_of(tmp_path, {"none": [50.0, 60.0, 55.0], "kd": [51.0, 63.0, 57.0]})
    found = gain(groups[1], groups)
    assert found is not None
    # differences 1, 3, 2: mean 2, standard deviation 1; t for 2 degrees of freedom is 4.3027
    half = 4.30265 / math.sqrt(3)
    ends = (pytest.approx(2 - half, abs=1e-4), pytest.approx(2 + half, abs=1e-4))
    assert found == (pytest.approx(2.0), *ends, (0, 1, 2))
    assert gain_notes(groups) == []


def test_one_seed_has_a_difference_and_no_interval(tmp_path: Path) -> None:
    groups = group_of(tmp_path, {"none": [50.0], "kd": [51.5]})
    assert gain(groups[1], groups) == (pytest.approx(1.5), None, None, (0,))


def test_only_seeds_in_common_are_paired_and_a_note_names_them(tmp_path: Path) -> None:
    groups = group_of(tmp_path, {"none": [50.0, 60.0], "kd": [51.0, 62.0, 99.0]})
    found = gain(groups[1], groups)
    assert found is not None
    assert (found.mean, found.seeds) == (pytest.approx(1.5), (0, 1))
    assert gain_notes(groups) == ["kd against none: seeds 0, 1 only (kd has seeds 0, 1, 2 and none has seeds 0, 1)"]


def test_without_a_seed_in_common_there_is_no_gain_and_a_note_says_so(tmp_path: Path) -> None:
    runs = [
        read_run(RunFolder(make_run(tmp_path / "none", Making(overrides=SHORT, images=2)))),
        read_run(RunFolder(make_run(tmp_path / "kd", Making(method="kd", seed=1, overrides=SHORT, teacher=TEACHER, images=2)))),
    ]
    groups = groups_of(runs)
    assert gain(groups[1], groups) is None
    assert gain_notes(groups) == [
        "kd against none: no seed has both scores, so there is no gain (kd has seed 1 and none has seed 0)"
    ]


def test_the_gain_is_over_the_undistilled_student_of_the_same_settings(read: dict[str, Run]) -> None:
    none, jml = groups_of([read[name] for name in ("none-s0", "none-s1", "jml-s0", "jml-s1")])
    means = [group.score("mIoU_D").mean for group in (none, jml)]
    found = gain(jml, [none, jml])
    assert found is not None
    assert means[0] is not None
    assert means[1] is not None
    assert found.mean == pytest.approx(means[1] - means[0])
    assert gain(none, [none, jml]) is None


def test_without_an_undistilled_student_of_the_same_settings_there_is_no_gain(read: dict[str, Run]) -> None:
    alone = groups_of([read["jml-s0"]])
    assert gain(alone[0], alone) is None
    city = groups_of([read["city-none"], read["city-jml"]])
    assert gain(city[1], city) is None  # 20,000 steps against 40,000
    assert gain_notes(city) == []


def test_of_several_undistilled_groups_the_one_scored_in_the_same_way_counts(read: dict[str, Run]) -> None:
    other = read["none-s0"]
    found = other.evaluations["val"]
    sliding = replace(other, evaluations={"val": replace(found, about={**found.about, "protocol": "sliding tiles"})})
    groups = groups_of([sliding, read["none-s1"], read["jml-s1"]])
    assert [group.method for group in groups] == ["none", "none", "jml"]
    gained = gain(groups[2], groups)
    assert gained is not None
    assert gained.seeds == (1,)


def test_seeds_in_several_groups_have_the_same_gain_in_every_table_of_the_page(tmp_path: Path) -> None:
    """`none` has seeds 0 and 1; `kd` has them too, but its second seed learnt from another teacher and is another group."""
    runs = tmp_path / "runs"
    none, kd = Making(overrides=SHORT), Making(overrides=SHORT, method="kd", teacher=TEACHER)
    made = {
        "none-0": replace(none, skill=0.6),
        "none-1": replace(none, seed=1, skill=0.8),
        "kd-0": replace(kd, skill=0.62),
        "kd-1": replace(kd, seed=1, skill=0.82, teacher={**TEACHER, "sha256": "77"}),
    }
    scores = {}
    for name, making in made.items():
        run = read_run(RunFolder(make_run(runs / name, making)))
        scores[name] = run.evaluations["val"].scores["mIoU_D"] or 0.0
    write_report([], runs, tmp_path / "report.md")
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    section = text.split("\n## Results and published numbers\n", 1)[1].split("\n## ", 1)[0]
    gains = columns(section, COLUMN)
    wanted = {f"kd (kd-{seed})": f"{scores[f'kd-{seed}'] - scores[f'none-{seed}']:+.2f}" for seed in (0, 1)}
    assert gains == [{"none": "–", **wanted}] * 2
    assert all(value.startswith("+") for value in wanted.values())
    for seed in (0, 1):
        note = f"kd (kd-{seed}) against none: seed {seed} only (kd (kd-{seed}) has seed {seed} and none has seeds 0, 1)"
        assert section.count(f"- {note}\n") == 2
    rows = "kd (kd-0) has seed 0; kd (kd-1) has seed 1"
    assert f"the seeds of kd are in 2 rows, because their runs differ in more than the seed: {rows}" in section
    differences = text.split("\n## Differences between runs\n", 1)[1].split("\n## ", 1)[0]
    (row,) = re.findall(r"^\| mIoU_D +\|(.*)\|$", differences, re.M)
    assert [cell.strip(" *").split(" [")[0] for cell in row.split("|")] == list(wanted.values())
    assert "- kd (kd-0) against none: seed 0 only" in differences


def columns(section: str, name: str) -> list[dict[str, str]]:
    """The column of that name in every Markdown table that has it, by the table's first column."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", section, re.M):
        head, _, *rows = ([cell.strip(" *") for cell in line.strip("|").split("|")] for line in block.splitlines())
        if name in head:
            found.append({row[0]: row[head.index(name)] for row in rows})
    return found
