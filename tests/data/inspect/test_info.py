import os
from pathlib import Path

import numpy as np
import pytest

from segctl.data.datasets import open_source
from segctl.data.inspect.info import describe_splits
from segctl.data.prepare import prepare_source

CAMVID_PIXELS = {
    "train": [10682767, 14750079, 623349, 20076880, 2845085, 6166762, 743859, 714595, 3719877, 405385, 184967],
    "val": [1601620, 4531180, 98499, 5053176, 1521751, 2851125, 155724, 537197, 304716, 113531, 387010],
}
CAMVID_IMAGES = [366, 365, 366, 367, 349, 319, 351, 173, 360, 317, 201]


def test_counts_equal_a_slow_count(dataset):
    for split in describe_splits(dataset):
        labels = [dataset.label(name) for name in dataset.names(split.split)]
        for train_id in range(11):
            assert split.pixels[train_id] == sum((label == train_id).sum() for label in labels)
            assert split.images[train_id] == sum((label == train_id).any() for label in labels)
        assert split.ignored_pixels == sum((label == 255).sum() for label in labels)
        assert split.count == len(labels)


def test_shares_are_of_the_pixels_that_are_not_ignored(dataset):
    train, _ = describe_splits(dataset)
    assert train.shares.sum() == pytest.approx(100)
    everything = train.pixels.sum() + train.ignored_pixels
    assert train.ignored_share == pytest.approx(100 * train.ignored_pixels / everything)


def test_sizes_and_groups_are_counted(dataset):
    train, val = describe_splits(dataset)
    assert train.sizes == {"520×300": 1, "96×120": 1, "80×64": 1, "310×200": 1, "128×96": 1, "70×90": 1}
    assert train.groups == {"0001TP": 1, "0016E5": 5}
    assert val.groups == {"0016E5": 2}


def test_many_sizes_have_a_shortest_and_a_longest_side(dataset):
    assert describe_splits(dataset)[0].sides == (64, 520)


def test_single_splits_are_counted_alone(dataset):
    (val,) = describe_splits(dataset, ["val"])
    assert (val.split, val.count) == ("val", 2)


def test_a_dataset_without_groups_has_none(shapes_root):
    from segctl.data.shards.dataset import open_dataset

    train, val = describe_splits(open_dataset(shapes_root, "shapes"))
    assert (train.count, val.count) == (240, 60)
    assert train.groups == {}


def test_the_machine_readable_form_has_plain_numbers(dataset):
    train, _ = describe_splits(dataset)
    tree = train.to_json(dataset.classes.names)
    assert tree["classes"]["Sky"]["pixels"] == int(train.pixels[0])
    assert type(tree["classes"]["Sky"]["pixels"]) is int
    assert tree["images"] == 6


@pytest.mark.slow
@pytest.mark.skipif("SEGCTL_CAMVID" not in os.environ, reason="SEGCTL_CAMVID names no folder with the real CamVid")
def test_the_real_counts_are_the_published_ones(tmp_path):
    dataset = prepare_source(open_source("camvid", [Path(os.environ["SEGCTL_CAMVID"])]), tmp_path)
    splits = {split.split: split for split in describe_splits(dataset)}
    assert list(splits) == ["train", "val"]
    for split, pixels in CAMVID_PIXELS.items():
        assert splits[split].pixels.tolist() == pixels
    assert splits["train"].images.tolist() == CAMVID_IMAGES
    assert splits["train"].ignored_pixels == 2503995
    assert splits["val"].ignored_pixels == 297271
    assert np.round(splits["train"].shares, 3).tolist()[:4] == [17.538, 24.215, 1.023, 32.96]
