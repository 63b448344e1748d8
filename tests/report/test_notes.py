"""Remarks name what a reader must know."""

from dataclasses import replace

from segctl.report.collect import read_run
from segctl.report.groups import comparisons_of
from segctl.report.notes import protocol_notes, student_notes
from segctl.report.published import pairings
from segctl.runs import RunFolder
from tests.report.run_folders import SHORT, Making, make_run


def notes_of(runs):
    comparison = comparisons_of(runs)[0]
    return student_notes(comparison.groups, comparison)


def test_groups_with_the_same_changes_share_a_line(read):
    notes = notes_of([read["none-s0"], read["jml-s0"]])
    assert notes == [
        "† none, jml: settings of the preset were changed, so do not compare these scores with published numbers or with runs "
        "without the changes: `data.crop` [240, 320] (preset [360, 480]), `train.steps` 800 (preset 10,000)",
        "no numbers are published for this preset",
        "teacher of jml: camvid-dl101-scratch, mIoU_D 52.31 on 32 images in the check before training",
    ]


def test_other_recipes_are_named(read):
    assert notes_of([read["city-jml"]])[0] == (
        "the published numbers of recipe cirkd, dist come from another optimiser, schedule, augmentation or protocol than "
        "ours (recipe jml): a difference from them is not a difference between methods"
    )


def test_every_seed_is_listed(read):
    notes = notes_of([read["none-s0"], read["none-s1"]])
    scores = [read[name].evaluations["val"].scores["mIoU_D"] for name in ("none-s0", "none-s1")]
    assert notes[-1] == f"none, mIoU_D by seed: {scores[0]:.2f} (seed 0), {scores[1]:.2f} (seed 1)"


def test_a_repeated_seed_is_said_to_be_left_out(read, tmp_path):
    again = read_run(RunFolder(make_run(tmp_path / "again", Making(overrides=SHORT))))
    assert notes_of([read["none-s0"], again])[-1] == (
        "`none-s0` is left out of the mean, because a newer run has the same settings and seed"
    )


def test_numbers_of_another_split_are_not_used(read):
    run = read["city-none"]
    moved = replace(run, evaluations={"test": replace(run.evaluations["val"], split="test")})
    assert "numbers are published for the split val only, so none are shown" in notes_of([moved])


def test_scores_of_a_trial_are_named_everywhere_and_stand_beside_no_published_number(read):
    run = read["city-none"]
    found, words = run.evaluations["val"], "a trial: at most 20 samples of each split"
    trial = replace(run, evaluations={"val": replace(found, about={**found.about, "trial": words})})
    (comparison,) = comparisons_of([trial])
    assert comparison.place == f"cityscapes / val ({words})"
    said = f"scored on {words}: these are not scores of the dataset, so no published numbers are shown"
    assert said in student_notes(comparison.groups, comparison)
    assert [pairing.theirs for pairing in pairings(comparison.groups)] == [None]


def test_protocols_that_differ_are_warned_of(read):
    run, other = read["none-s0"], read["jml-s0"]
    found = other.evaluations["val"]
    sliding = replace(found, about={**found.about, "protocol": "sliding tiles"})
    (comparison,) = comparisons_of([run, replace(other, evaluations={"val": sliding})])
    assert protocol_notes(comparison) == [
        "the protocols differ, which can change scores as well: camvid-psp18-scratch · none: whole image, single scale, "
        "no flip; camvid-psp18-scratch · jml: sliding tiles"
    ]


def test_one_protocol_needs_no_word(read):
    assert protocol_notes(comparisons_of([read["none-s0"], read["jml-s0"]])[0]) == []
