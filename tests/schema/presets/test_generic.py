"""A preset without a dataset is fitted to one by its sizes and counts, and says why."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest

from segctl.errors import InputError
from segctl.schema.data import Size
from segctl.schema.load import (
    apply_override,
    find_preset,
    generic_names,
    load_preset,
    preset_names,
    read_tree,
    validate_run,
)
from segctl.schema.presets.generic import DatasetFacts, crop_for, fit_to, preset_arguments, preset_of, steps_for
from segctl.schema.run import DistillRun, TrainRun


def facts(
    train: Sequence[Size], val: Sequence[Size] = ((360, 480),), *, name: str = "streets", classes: int = 5, **more: Any
) -> DatasetFacts:
    return DatasetFacts(name, {"train": train, "val": val, **more}, classes)


def fitted(preset: str, found: DatasetFacts, *changes: str) -> tuple[TrainRun, list[str]]:
    tree = read_tree(find_preset(preset))
    written = copy.deepcopy(tree)
    for change in changes:
        apply_override(tree, change)
    reasons = fit_to(tree, written, found)
    return validate_run(tree, preset), reasons


@pytest.mark.parametrize(
    ("sizes", "crop"),
    [
        ([(360, 480)] * 367, (360, 480)),  # CamVid: the shipped presets' crop
        ([(1024, 2048)] * 2975, (512, 1024)),  # Cityscapes: the same
        ([(2448, 2448)] * 642, (512, 512)),  # DeepGlobe: the same
        ([(375, 500)] * 6 + [(500, 375)] * 3, (512, 512)),  # VOC: the same
        ([(3000, 4000)] * 10, (512, 704)),
        ([(4000, 3000)] * 10, (704, 512)),
        ([(3000, 4000)] * 99 + [(4000, 3000)], (512, 704)),  # one stray picture does not decide
        ([(480, 640), (470, 630), (490, 650)], (480, 640)),
        ([(16, 16)] * 4, (64, 64)),
        ([(32, 300)] * 4, (64, 64)),
        ([(300, 3000)] * 4, (300, 608)),
        ([(600, 800)] * 4, (512, 704)),
        ([(1, 65_000)], (64, 64)),
    ],
)
def test_the_crop_follows_the_pictures(sizes: list[Size], crop: Size) -> None:
    assert crop_for(sizes)[0] == crop


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([(360, 480)], "every picture is 360×480"),
        ([(16, 16)], "every picture is 16×16; no side of a crop is shorter than 64"),
        ([(3000, 4000)], "every picture is 3000×4000; a crop has at most 512×1024 pixels and is at most twice as long as wide"),
        ([(480, 640), (470, 630), (490, 650)], "the median picture is 480×640"),
        ([(375, 500), (500, 375)], "some pictures are upright and others are not, and their median longer side is 500"),
    ],
)
def test_the_crop_has_a_reason(sizes: list[Size], words: str) -> None:
    assert crop_for(sizes)[1] == words


@pytest.mark.parametrize(
    ("images", "batch", "classes", "steps", "words"),
    [
        (367, 8, 11, 9_175, "steps 9,175: 200 epochs × 367 images / batch 8"),
        (2975, 8, 19, 40_000, "steps 40,000, the most with 19 classes: 200 epochs × 2,975 images / batch 8 would be 74,375"),
        (
            20_210,
            8,
            150,
            80_000,
            "steps 80,000, the most with 150 classes: 200 epochs × 20,210 images / batch 8 would be 505,250",
        ),
        (7, 4, 2, 2_000, "steps 2,000, the fewest: 200 epochs × 7 images / batch 4 would be 350"),
        (1, 1, 2, 2_000, "steps 2,000, the fewest: 200 epochs × 1 image / batch 1 would be 200"),
    ],
)
def test_the_steps_are_epochs_within_bounds(images: int, batch: int, classes: int, steps: int, words: str) -> None:
    assert steps_for(images, batch, classes) == (steps, words)


def test_seven_images_get_a_batch_that_they_can_fill() -> None:
    run, reasons = fitted("fast", facts([(480, 640)] * 7, [(480, 640)]))
    assert (run.train.batch_size, run.train.steps, run.train.validate_every, run.train.checkpoint_every) == (4, 2000, 200, 50)
    assert "batch 4: 'train' has 7 images" in reasons


def test_large_pictures_are_scored_by_tiles_of_the_crop_and_small_ones_whole() -> None:
    large, why = fitted("tiny", facts([(3000, 4000)] * 8, [(3000, 4000)]))
    assert large.evaluate.model_dump()["protocol"] == {"kind": "sliding", "tile": (512, 704), "stride": 0.6667}
    assert why[-1] == "evaluation by sliding tiles of 512×704: pictures are up to 3000×4000"
    small, why = fitted("tiny", facts([(360, 480)] * 8))
    assert small.evaluate.protocol.kind == "whole"
    assert why[-1] == "evaluation of whole pictures: each fits into the crop"
    one_large, _ = fitted("tiny", facts([(360, 480)] * 8, [(360, 480), (361, 480)]))
    assert one_large.evaluate.protocol.kind == "sliding"


def test_the_run_says_its_dataset_and_its_teacher_is_on_the_same() -> None:
    student, _ = fitted("fast", facts([(360, 480)] * 8))
    teacher, _ = fitted("dl101", facts([(360, 480)] * 8))
    assert isinstance(student, DistillRun)
    assert (student.name, student.data.dataset, student.teacher.preset, teacher.name) == (
        "streets-fast", "streets", "streets-dl101", "streets-dl101",
    )  # fmt: skip
    assert student.published == ()


def test_what_is_given_stays_and_the_rest_follows_it() -> None:
    changes = ["data.crop=[64,96]", "train.batch_size=2", "train.validate_every=7", "evaluate.protocol.kind=sliding", "name=mine"]
    run, reasons = fitted("fast", facts([(360, 480)] * 40), *changes, "teacher.preset=psp18")
    assert (run.name, run.data.crop, run.train.batch_size, run.train.validate_every) == ("mine", (64, 96), 2, 7)
    assert run.train.steps == 4_000
    assert run.evaluate.model_dump()["protocol"]["tile"] == (64, 96)
    assert isinstance(run, DistillRun)
    assert run.teacher.preset == "streets-psp18"
    assert reasons == ["steps 4,000: 200 epochs × 40 images / batch 2"]
    run, reasons = fitted("fast", facts([(360, 480)] * 40), "train.steps=30", "teacher.preset=my-teacher")
    assert (run.train.steps, run.train.validate_every, run.train.checkpoint_every) == (30, 3, 1)
    assert isinstance(run, DistillRun)
    assert run.teacher.preset == "my-teacher"
    assert not any(reason.startswith("steps") for reason in reasons)


def test_epochs_and_what_fits_into_memory_can_be_asked_for() -> None:
    run, reasons = fitted("fast", facts([(360, 480)] * 41), "train.epochs=10", "train.batch_size=auto")
    assert (run.train.steps, run.train.epochs, run.train.batch_size, run.train.accumulate) == (None, 10, 8, "auto")
    assert (run.train.validate_every, run.train.checkpoint_every) == (6, 2)  # of 52 steps
    assert len(reasons) == 2


def test_folds_and_other_names_of_splits_are_found_and_named() -> None:
    folds = {"train_fold0": [(9, 9)] * 8, "train_fold1": [(9, 9)] * 8, "val_fold1": [(9, 9)], "val_fold0": [(9, 9)]}
    run, reasons = fitted("fast", DatasetFacts("own", folds, 3))
    assert (run.data.train_split, run.data.val_split) == ("train_fold0", "val_fold0")
    assert reasons[:2] == ["training split 'train_fold0' of train_fold0, train_fold1", "validation split 'val_fold0'"]
    run, _ = fitted("fast", DatasetFacts("own", folds, 3), "data.train_split=train_fold1")
    assert run.data.val_split == "val_fold1"
    run, _ = fitted("fast", DatasetFacts("own", {"train": [(9, 9)] * 8, "valid": [(9, 9)]}, 3))
    assert run.data.val_split == "valid"


@pytest.mark.parametrize(
    ("found", "changes", "message"),
    [
        (facts([(9, 9)], classes=1), [], "dataset 'streets' has a single class, so there is nothing to tell apart"),
        (DatasetFacts("a", {"train": [(9, 9)], "test": [(9, 9)]}, 2), [],
         "dataset 'a' has no split for validation: it has train, test"),
        (DatasetFacts("a", {"all": [(9, 9)]}, 2), [], "dataset 'a' has no split called 'train'"),
        (facts([(9, 9)]), ["data.train_split=tran"], "dataset 'streets' has no split called 'tran', did you mean 'train'?"),
        (facts([(9, 9)]), ["data.val_split=vl"], "dataset 'streets' has no split called 'vl', did you mean 'val'?"),
        (facts([]), [], "split 'train' of dataset 'streets' is empty"),
        (facts([(9, 9)], []), [], "split 'val' of dataset 'streets' is empty"),
    ],
)  # fmt: skip
def test_a_dataset_that_no_run_can_use_is_refused(found: DatasetFacts, changes: list[str], message: str) -> None:
    with pytest.raises(InputError) as caught:
        fitted("fast", found, *changes)
    assert caught.value.message == message


@pytest.mark.parametrize(
    "change",
    ["train=5", "data=5", "evaluate=5", "train.batch_size=abc", "train.batch_size=true", "train.steps=-1", "data.crop=[1]",
     "data.crop=x", "teacher=3", "name=7", "evaluate.protocol=4", "train.batch_size=[2]"],
)  # fmt: skip
def test_a_value_that_no_run_accepts_is_left_to_the_schema(change: str) -> None:
    with pytest.raises(InputError):
        fitted("fast", facts([(360, 480)] * 8), change)


def test_a_dataset_with_a_shipped_preset_takes_its_name_and_another_does_not() -> None:
    assert preset_of("fast", "camvid") == "camvid-fast"
    assert preset_of("dl101", "voc-sbd-wins") == "voc-dl101"
    assert preset_of("dl101", "voc") == "voc-plain-dl101"  # voc-dl101 is on the labels of voc-sbd-wins
    assert preset_of("fast-scratch", "camvid") == "camvid-fast-scratch"
    assert preset_of("fast", "streets") == "streets-fast"


def test_a_missing_teacher_is_asked_for_as_a_person_names_it() -> None:
    assert preset_arguments("streets-dl101", "streets") == ["--preset", "dl101", "--data", "streets"]
    assert preset_arguments("streets-dl101-scratch", "streets") == ["--preset", "dl101-scratch", "--data", "streets"]
    assert preset_arguments("camvid-dl101", "camvid") == ["--preset", "camvid-dl101"]
    assert preset_arguments("mine.yaml", "streets") == ["--preset", "mine.yaml"]


@pytest.mark.parametrize("name", generic_names())
def test_a_generic_preset_is_the_one_shipped_for_camvid_but_for_what_is_fitted(name: str) -> None:
    """With CamVid's sizes and counts: 367 and 101 pictures of 360×480, 11 classes."""
    run, _ = fitted(name, facts([(360, 480)] * 367, [(360, 480)] * 101, classes=11))
    if f"camvid-{name}" not in preset_names():
        return
    shipped = load_preset(f"camvid-{name}")
    assert type(run) is type(shipped)
    fitted_parts = {"name", "published", "teacher", "train", "data"}
    assert run.model_dump(exclude=fitted_parts) == shipped.model_dump(exclude=fitted_parts)
    assert run.data == shipped.data.model_copy(update={"dataset": "streets"})
    lengths = {"steps", "validate_every", "checkpoint_every"}
    assert run.train.model_dump(exclude=lengths) == shipped.train.model_dump(exclude=lengths)


def test_only_the_tiny_and_fast_scratch_presets_have_no_camvid_twin() -> None:
    assert [name for name in generic_names() if f"camvid-{name}" not in preset_names()] == ["fast-scratch", "tiny-scratch"]


@pytest.mark.parametrize("name", generic_names())
def test_a_scratch_preset_downloads_nothing_and_its_teacher_neither(name: str) -> None:
    run, _ = fitted(name, facts([(360, 480)] * 8))
    scratch = name.endswith("-scratch")
    assert (run.model.weights == "none", "." not in run.model.backbone, run.optim.kind == "sgd") == (scratch,) * 3
    if isinstance(run, DistillRun):
        assert run.teacher.preset == ("streets-dl101-scratch" if scratch else "streets-dl101")


@pytest.mark.parametrize("name", generic_names())
def test_the_header_says_purpose_command_score_and_what_is_fitted(name: str) -> None:
    head = find_preset(name).read_text(encoding="utf-8").splitlines()[:4]
    verb = "distill" if "distiller" in read_tree(find_preset(name)) else "train"
    assert head[1] == f"# Command:  segctl {verb} --preset {name} --data NAME"
    assert [line.split()[1] for line in head[2:]] == ["Expected:", "Fitted:"]


def test_without_a_dataset_one_sentence_says_what_to_type() -> None:
    with pytest.raises(InputError) as caught:
        load_preset("fast")
    assert caught.value.message == "preset 'fast' is for any dataset, and none is named"
    assert caught.value.hint == "for example `segctl distill --preset fast --data NAME`; `segctl data list` shows the names"
