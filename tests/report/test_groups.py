"""Seeds make a group; other data makes another table."""

from dataclasses import replace

import pytest

from segctl.report.collect import read_run
from segctl.report.groups import comparisons_of, grouped, setting_text, spread, without_method
from segctl.runs import RunFolder
from segctl.schema.same_run import group_settings
from tests.report.run_folders import SHORT, TEACHER, Making, evaluate, make_run


def test_spread_by_hand():
    assert spread([1.0, 3.0]) == (2.0, pytest.approx(2**0.5), 2)
    assert spread([4.0]) == (4.0, None, 1)
    assert spread([None, 4.0]) == (4.0, None, 1)
    assert spread([]) == (None, None, 0)


def test_runs_that_differ_only_in_the_seed_are_one_group(read):
    camvid, _ = comparisons_of(list(read.values()))
    assert [(group.label, [run.label for run in group.runs]) for group in camvid.groups] == [
        ("camvid-psp18-scratch · none", ["none-s0", "none-s1"]),
        ("camvid-psp18-scratch · jml", ["jml-s0", "jml-s1"]),
    ]


def test_a_groups_score_is_the_mean_over_its_seeds(read):
    group = comparisons_of([read["none-s0"], read["none-s1"]])[0].groups[0]
    values = [read[name].evaluations["val"].scores["mIoU_D"] for name in ("none-s0", "none-s1")]
    found = group.score("mIoU_D")
    assert found.mean == pytest.approx(sum(values) / 2)
    assert found.std == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    classes = [read[name].evaluations["val"].per_class[0]["IoU_D"] for name in ("none-s0", "none-s1")]
    assert group.class_score("sky", "IoU_D").mean == pytest.approx(sum(classes) / 2)


def test_datasets_never_share_a_comparison(read):
    assert [comparison.place for comparison in comparisons_of(list(read.values()))] == ["camvid / val", "cityscapes / val"]


def test_data_of_another_fingerprint_is_another_comparison(read, tmp_path):
    path = make_run(tmp_path / "other", Making(overrides=SHORT, fingerprint="ffff00001111222233"))
    found = comparisons_of([read["none-s0"], read_run(RunFolder(path))])
    assert [comparison.place for comparison in found] == [
        "camvid / val, data 3f2a9c61d0be",
        "camvid / val, data ffff00001111",
    ]


def test_splits_are_compared_apart_and_can_be_chosen(tmp_path):
    making = Making(overrides=SHORT, images=2)
    path = make_run(tmp_path / "one", making)
    evaluate(path, replace(making, split="test"), "camvid")
    run = read_run(RunFolder(path))
    assert [comparison.split for comparison in comparisons_of([run])] == ["test", "val"]
    assert [comparison.split for comparison in comparisons_of([run], "test")] == ["test"]


def test_other_settings_are_another_group_named_by_them(tmp_path, read):
    path = make_run(tmp_path / "longer", Making(overrides=("train.steps=900", SHORT[1])))
    (found,) = comparisons_of([read["none-s0"], read_run(RunFolder(path))])
    assert [group.label for group in found.groups] == [
        "camvid-psp18-scratch · none (train.steps 800)",
        "camvid-psp18-scratch · none (train.steps 900)",
    ]


def test_groups_that_no_one_setting_tells_apart_are_named_by_their_runs(tmp_path, read):
    path = make_run(tmp_path / "other-teacher", Making(overrides=SHORT, method="jml", teacher={**TEACHER, "sha256": "77"}))
    (found,) = comparisons_of([read["jml-s0"], read_run(RunFolder(path))])
    assert [group.label for group in found.groups] == [
        "camvid-psp18-scratch · jml (jml-s0)",
        "camvid-psp18-scratch · jml (other-teacher)",
    ]


def test_a_seed_run_twice_counts_once(tmp_path, read):
    path = make_run(tmp_path / "again", Making(overrides=SHORT))
    (found,) = comparisons_of([read["none-s0"], read["none-s1"], read_run(RunFolder(path))])
    assert [run.label for run in found.groups[0].runs] == ["again", "none-s1"]
    assert [run.label for run in found.repeats] == ["none-s0"]


def test_a_setting_that_follows_from_another_does_not_hide_its_name(tmp_path, read):
    path = make_run(tmp_path / "best", Making(overrides=(*SHORT, "train.select=best")))
    (found,) = comparisons_of([read["none-s0"], read_run(RunFolder(path))])
    assert [group.label for group in found.groups] == [
        "camvid-psp18-scratch · none (train.select last)",
        "camvid-psp18-scratch · none (train.select best)",
    ]


def test_seeds_with_and_without_a_teacher_cache_are_one_group(tmp_path):
    fixed = Making(method="kd", overrides=(*SHORT, "data.scale=[1, 1]"), teacher=TEACHER)
    cached = replace(fixed, seed=1, overrides=(*fixed.overrides, "teacher.cache=true"))
    runs = [read_run(RunFolder(make_run(tmp_path / f"s{making.seed}", making))) for making in (fixed, cached)]
    ((group,),) = [found.groups for found in comparisons_of(runs)]
    assert (group.label, [run.seed for run in group.runs]) == ("camvid-psp18-scratch · kd", [0, 1])
    assert group.score("mIoU_D").std is not None


def test_workers_and_checkpoints_do_not_make_another_run(tmp_path, read):
    path = make_run(tmp_path / "faster", Making(overrides=(*SHORT, "data.workers=7", "train.checkpoint_every=1"), seed=5))
    (found,) = comparisons_of([read["none-s0"], read_run(RunFolder(path))])
    assert len(found.groups) == 1


def test_unscored_runs_have_a_group_of_curves(read):
    labels = {label: [run.label for run in runs] for label, runs in grouped([read["jml-s0"], read["stopped"]])}
    assert labels == {"camvid-psp18-scratch · jml": ["jml-s0", "stopped"]}


def test_a_student_shares_its_settings_with_and_without_a_teacher(read):
    assert without_method(read["jml-s0"].spec) == group_settings(read["none-s1"].spec)


def test_settings_are_shown_as_a_person_writes_them():
    assert [setting_text(value) for value in (10_000, 0.5, True, [240, 320], "timm", None)] == [
        "10,000", "0.5", "true", "[240, 320]", "timm", "none",
    ]  # fmt: skip
