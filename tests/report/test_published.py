"""Our numbers beside published ones."""

from dataclasses import replace

from segctl.report.collect import read_run
from segctl.report.groups import comparisons_of
from segctl.report.published import has_published_split, pairings, preset_changes
from segctl.runs import RunFolder
from segctl.schema.load import load_preset
from tests.report.run_folders import Making, evaluate, make_run


def groups_of(read, *names):
    return comparisons_of([read[name] for name in names])[0].groups


def test_every_published_method_has_a_row_whether_we_ran_it_or_not(read):
    found = pairings(groups_of(read, "city-none", "city-jml"))
    assert [(pair.method, pair.ours is not None, pair.theirs.value) for pair in found] == [
        ("none", True, 72.55), ("skd", False, 73.29), ("ifvd", False, 73.71), ("cwd", False, 74.36),
        ("cirkd", False, 74.73), ("maskd", False, 75.34), ("dist", False, 76.31), ("jml", True, 77.75),
    ]  # fmt: skip


def test_a_method_nobody_published_has_a_row_too(read):
    assert [(pair.method, pair.theirs) for pair in pairings(groups_of(read, "none-s0", "jml-s0"))] == [
        ("none", None),
        ("jml", None),
    ]


def test_the_same_recipe_meets_first(read):
    group = groups_of(read, "city-jml")[0]
    other, same = (
        score.model_copy(update={"recipe": recipe})
        for score, recipe in [(group.spec.published[-1], "dist"), (group.spec.published[-1], "jml")]
    )
    run = group.runs[0]
    changed = replace(group, runs=(replace(run, spec=run.spec.model_copy(update={"published": (other, same)})),))
    assert [(pair.ours is not None, pair.theirs.recipe) for pair in pairings([changed])] == [(True, "jml"), (False, "dist")]


def test_published_numbers_stand_only_beside_their_split(tmp_path):
    making = Making(preset="cityscapes-psp18", images=2, height=32, width=64)
    path = make_run(tmp_path / "one", making)
    evaluate(path, replace(making, split="test"), "cityscapes")
    test, val = comparisons_of([read_run(RunFolder(path))])
    assert (has_published_split(test.groups[0]), has_published_split(val.groups[0])) == (False, True)
    assert [pair.theirs for pair in pairings(test.groups)] == [None]


def test_changes_are_listed_with_the_presets_value(read):
    assert preset_changes(read["none-s0"].spec) == [
        "`data.crop` [240, 320] (preset [360, 480])",
        "`train.steps` 800 (preset 10,000)",
    ]


def test_the_method_and_the_seed_are_no_changes(read):
    assert preset_changes(read["city-jml"].spec) == []
    assert preset_changes(load_preset("camvid-psp18", ["train.seed=3", "train.precision=fp32", "data.workers=2"])) == []


def test_another_loss_is_a_change_without_its_whole_text():
    assert preset_changes(load_preset("camvid-psp18", ["loss.0.weight=0.25"])) == ["`loss` changed"]


def test_a_preset_of_ones_own_has_nothing_to_differ_from(read):
    assert preset_changes(read["none-s0"].spec.model_copy(update={"name": "mine"})) == []


def test_validating_more_often_matters_only_where_the_best_is_kept():
    often = ["train.validate_every=7"]
    assert preset_changes(load_preset("camvid-psp18", often)) == []
    assert len(preset_changes(load_preset("camvid-psp18", [*often, "train.select=best"]))) == 2
