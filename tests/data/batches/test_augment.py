"""Every operation of `data.augment` against a slow reference, and the views that look for classes."""

import io

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from segctl.data.batches.augment import PADDING_RGB, apply
from segctl.data.batches.loader import training_batches
from segctl.data.batches.views import Views, draw_view, read_view
from segctl.data.shards.dataset import PreparedDataset, SampleRecord
from segctl.errors import InputError
from segctl.schema.data import (
    AffineSpec,
    AugmentSpec,
    BlurSpec,
    ClassCropSpec,
    ColorSpec,
    CopyPasteSpec,
    CutoutSpec,
    DataSpec,
    GreySpec,
    JpegSpec,
    NoiseSpec,
    VerticalFlipSpec,
)

SPEC = DataSpec(dataset="camvid", crop=(64, 96))
EVERY = [
    {"kind": kind, "probability": 0.7}
    for kind in (
        "color", "copy_paste", "blur", "noise", "jpeg", "grey", "vertical_flip", "affine", "cutout", "class_crop",
    )
]  # fmt: skip


class Highest:
    """A generator that draws the upper end of every range."""

    def uniform(self, low, high):
        return high

    def integers(self, low, high=None):
        return (low if high is None else high) - 1

    def standard_normal(self, shape, dtype):
        return np.ones(shape, dtype)


def picture(height=20, width=31):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (height, width, 3), np.uint8)
    return image, random.integers(0, 11, (height, width), np.uint8)


def done(step: AugmentSpec, size=(20, 31)):
    image, label = picture(*size)
    before = image.copy(), label.copy()
    apply(step, image, label, Highest(), PADDING_RGB)
    return before, (image, label)


def spec(*steps, **options) -> DataSpec:
    return DataSpec.model_validate({"dataset": "camvid", "crop": (64, 96), "augment": list(steps)} | options)


def test_brightness_and_contrast_follow_their_formula():
    (before, label), (image, same) = done(ColorSpec(brightness=0.2, contrast=0.3, saturation=0, hue=0))
    grey = 1.2 * cv2.cvtColor(before, cv2.COLOR_RGB2GRAY).mean()
    wanted = np.clip((before * 1.2 - grey) * 1.3 + grey, 0, 255)
    assert np.abs(image - wanted).max() <= 0.5 + 1e-9
    assert np.array_equal(label, same)


def test_hue_turns_red_to_green_and_saturation_leaves_grey_alone():
    image = np.array([[[255, 0, 0], [90, 90, 90]]], np.uint8)
    apply(ColorSpec(brightness=0, contrast=0, saturation=0.5, hue=1 / 3), image, image[..., 0], Highest(), PADDING_RGB)
    assert np.abs(image.astype(int) - [[[0, 255, 0], [90, 90, 90]]]).max() <= 3


def test_blur_noise_jpeg_and_grey_change_the_image_alone():
    (before, _), (blurred, _) = done(BlurSpec(sigma=(1, 1.5)))
    assert np.array_equal(blurred, cv2.GaussianBlur(before, (0, 0), 1.5))
    (before, _), (noisy, _) = done(NoiseSpec(std=(0, 7)))
    assert np.array_equal(noisy, np.minimum(before.astype(int) + 7, 255))
    (before, label), (packed, same) = done(JpegSpec(quality=(40, 60)))
    stream = io.BytesIO()
    Image.fromarray(before).save(stream, "JPEG", quality=60)
    assert np.abs(packed.astype(int) - np.asarray(Image.open(stream))).max() <= 3
    (before, _), (grey, _) = done(GreySpec())
    assert np.array_equal(grey, cv2.cvtColor(before, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, 2))
    assert np.array_equal(label, same)


def test_jpeg_keeps_red_red():
    image = np.full((16, 16, 3), (250, 10, 20), np.uint8)
    apply(JpegSpec(quality=(95, 95)), image, image[..., 0], Highest(), PADDING_RGB)
    assert np.abs(image.astype(int) - (250, 10, 20)).max() < 12


def test_a_vertical_flip_and_half_a_turn():
    (image, label), (flipped, flipped_label) = done(VerticalFlipSpec())
    assert np.array_equal(flipped, image[::-1])
    assert np.array_equal(flipped_label, label[::-1])
    (image, label), (turned, turned_label) = done(AffineSpec(degrees=180))
    assert np.array_equal(turned, image[::-1, ::-1])
    assert np.array_equal(turned_label, label[::-1, ::-1])


def test_a_shift_brings_padding_whose_label_is_ignored():
    (image, label), (shifted, shifted_label) = done(AffineSpec(degrees=0, translate=0.5), size=(20, 30))
    assert np.array_equal(shifted[10:, 15:], image[:10, :15])
    assert np.array_equal(shifted_label[10:, 15:], label[:10, :15])
    assert (shifted[:10] == PADDING_RGB).all()
    assert (shifted_label[:10] == 255).all()
    assert (shifted_label[:, :15] == 255).all()


def test_a_quarter_turn_turns_image_and_label_alike():
    image = np.zeros((21, 21, 3), np.uint8)
    image[3, 10], label = 255, np.zeros((21, 21), np.uint8)
    label[3, 10] = 7
    apply(AffineSpec(degrees=90), image, label, Highest(), PADDING_RGB)
    assert np.argwhere(label == 7).tolist() == np.argwhere(image[..., 0] == 255).tolist() == [[10, 17]]


def test_cutout_covers_what_it_says():
    _, (image, label) = done(CutoutSpec(size=(0.2, 0.5)), size=(20, 30))
    covered = (image == PADDING_RGB).all(2)
    assert covered.sum() == 10 * 15
    assert (label[covered] == 255).all()
    assert (label != 255).sum() == 20 * 30 - 150


def test_without_augmentation_views_are_those_that_were_always_drawn(dataset: PreparedDataset):
    name = dataset.names("train")[0]
    _, image, label = Views.of(dataset, "train", SPEC).read(name, np.random.default_rng(5))
    wanted = read_view(dataset, name, draw_view(dataset.size(name), SPEC, np.random.default_rng(5)))
    assert np.array_equal(image, wanted[0])
    assert np.array_equal(label, wanted[1])


def test_colours_do_not_move_the_view(dataset: PreparedDataset):
    name = dataset.names("train")[0]
    views = Views.of(dataset, "train", spec({"kind": "color"}, {"kind": "noise", "probability": 1}))
    _, image, label = views.read(name, np.random.default_rng(5))
    wanted = read_view(dataset, name, draw_view(dataset.size(name), SPEC, np.random.default_rng(5)))
    assert np.array_equal(label, wanted[1])
    assert not np.array_equal(image, wanted[0])


def rarest(dataset: PreparedDataset) -> str:
    counts = dataset.label_counts["train"].classes
    return dataset.classes.names[min((count, train_id) for train_id, count in enumerate(counts) if count)[1]]


def test_a_class_crop_shows_its_class_in_every_view(dataset: PreparedDataset):
    rare = rarest(dataset)
    train_id = dataset.classes.names.index(rare)
    views = Views.of(dataset, "train", spec({"kind": "class_crop", "probability": 1, "classes": [rare]}, crop=(16, 24)))
    holders = views.holders[train_id]
    assert holders
    for seed in range(30):
        view, _, label = views.read(holders[seed % len(holders)], np.random.default_rng(seed))
        assert (label == train_id).any(), view


def test_rare_classes_are_chosen_by_their_rarity(dataset: PreparedDataset):
    views = Views(dataset, SPEC, holders={0: ["a"], 3: ["a"]}, rarity={0: 1.25, 3: 5.0})
    chosen = [views._some_class(ClassCropSpec(), {0, 3}, np.random.default_rng(seed)) for seed in range(500)]
    assert 0.75 < np.mean(np.array(chosen) == 3) < 0.85


def test_copied_pixels_come_with_their_class_and_nothing_else_changes(dataset: PreparedDataset):
    rare = rarest(dataset)
    train_id = dataset.classes.names.index(rare)
    views = Views.of(dataset, "train", spec({"kind": "copy_paste", "probability": 1, "classes": [rare]}))
    for seed, name in enumerate(dataset.names("train")):
        view, image, label = views.read(name, np.random.default_rng(seed))
        plain = read_view(dataset, name, view)
        changed = label != plain[1]
        assert (label == train_id).any()
        assert (label[changed] == train_id).all()
        moved = (image != plain[0]).any(2)
        assert (label[moved] == train_id).all()


def test_the_views_are_the_same_with_any_workers_and_after_a_resume(dataset: PreparedDataset):
    def batches(first, workers):
        options = {"view": spec(*EVERY), "batch_size": 4, "seed": 3}
        return list(training_batches(dataset, "train", first_step=first, last_step=4, workers=workers, **options))

    alone, others, resumed = batches(0, 0), batches(0, 2), batches(2, 0)
    for one, other in zip([*alone, *alone[2:]], [*others, *resumed], strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.labels, other.labels)


def test_an_unknown_class_and_a_dataset_without_counts_are_refused(dataset: PreparedDataset):
    with pytest.raises(InputError, match=r"data.augment.1.classes: got 'Peds', wanted a class of 'camvid'"):
        Views.of(dataset, "train", spec({"kind": "color"}, {"kind": "copy_paste", "classes": ["Peds"]}))
    old = {name: SampleRecord(0, 1, 1, 1, "", "") for name in dataset.samples}
    without = PreparedDataset(**{**vars(dataset), "samples": old})
    assert Views.of(without, "train", spec({"kind": "color"}))
    with pytest.raises(InputError, match="an older segctl prepared it"):
        Views.of(without, "train", spec({"kind": "class_crop"}))


def test_the_classes_of_each_sample_are_counted_when_it_is_packed(dataset: PreparedDataset):
    for name, record in dataset.samples.items():
        ids, counts = np.unique(dataset.label(name), return_counts=True)
        found = dict(zip(map(str, ids.tolist()), counts.tolist(), strict=True))
        found.pop("255", None)
        assert record.class_pixels == found


def test_copy_paste_may_find_nothing_to_copy(dataset: PreparedDataset):
    image, label = picture()
    before = image.copy()
    Views(dataset, SPEC)._paste(CopyPasteSpec(), image, label, np.random.default_rng(0))
    assert np.array_equal(image, before)
