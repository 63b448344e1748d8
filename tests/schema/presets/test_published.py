"""Published scores are of a dataset and a split, and stay so in a run on others."""

from segctl.schema.load import load_preset
from segctl.schema.presets.published import published_on
from segctl.schema.run import PublishedScore


def test_scores_stand_beside_their_dataset_and_split_alone() -> None:
    run = load_preset("cityscapes-psp18")
    assert len(published_on(run, "val")) == len(run.published) == 8
    assert published_on(run, "test") == ()
    assert published_on(load_preset("cityscapes-psp18", ["data.dataset=streets"]), "val") == ()
    assert published_on(load_preset("camvid-psp18", ["data.val_split=test"]), "test") == ()


def test_a_copy_under_another_name_on_other_data_keeps_none() -> None:
    run = load_preset("cityscapes-psp18", ["name=mine", "data.dataset=streets"])
    assert published_on(run, "val") == ()


def test_a_score_that_two_datasets_share_stands_beside_both() -> None:
    wins, voc = load_preset("voc-dl101"), load_preset("voc-dl101-cirkd")
    shared = {score.value for score in wins.published} & {score.value for score in voc.published}
    assert shared == {score.value for score in published_on(wins, "val")} == {score.value for score in published_on(voc, "val")}


def test_a_score_of_a_persons_own_preset_is_of_the_data_beside_it() -> None:
    score = PublishedScore(method="none", value=61.5, source="our paper", recipe="jml")
    run = load_preset("camvid-psp18", ["name=mine", "data.dataset=streets"]).model_copy(update={"published": (score,)})
    assert published_on(run, "val") == (score,)
    assert published_on(run, "test") == ()
