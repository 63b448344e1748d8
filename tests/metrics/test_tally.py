"""Everything counted of an image: joined from any shares, kept in a file, scored under every name."""

import numpy as np
import pytest
import torch
from cityscapes_labels import BENCHMARK, CATEGORIES

from segctl.metrics.boundary import boundary_counts
from segctl.metrics.calibration import fill_bins
from segctl.metrics.counts import confusion, count, pairs
from segctl.metrics.instances import instance_rows
from segctl.metrics.scores import SCORE_NAMES, score
from segctl.metrics.tally import Counted, ImageCounts, Tally, all_scores, merge_counted, read_part, write_part

NAMES = [f"im/{index:02d}" for index in range(7)]
CLASSES = [name for names in CATEGORIES.values() for name in names]
GROUPS = {name: f"drive {index // 3}" for index, name in enumerate(NAMES)}


def maps(name):
    random = np.random.default_rng(NAMES.index(name))
    label = random.integers(0, 19, (5, 6)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    prediction = np.where(random.random(label.shape) < 0.6, label, random.integers(0, 21, label.shape)).astype(np.uint8)
    instances = np.where(label > 10, 1000 * (label.astype(np.int32) + 13) + np.arange(24) // 6, label).astype(np.uint16)
    label[0] = 255
    return prediction, label, instances


def everything(name):
    prediction, label, instances = maps(name)
    probabilities = torch.nn.functional.one_hot(torch.from_numpy(prediction).long().clamp(max=18), 19).float() * 0.8 + 0.2 / 19
    return ImageCounts(
        name,
        pairs(prediction[None], label[None], 19)[0],
        boundary_counts(prediction, label, 19),
        instance_rows(prediction, label, instances, BENCHMARK.of_ids(CLASSES)),
        fill_bins(probabilities.permute(2, 0, 1)[None], torch.from_numpy(label)[None])[0].numpy(),
        np.full(19, NAMES.index(name)),
    )


def only_pairs(name):
    prediction, label, _ = maps(name)
    return ImageCounts(name, pairs(prediction[None], label[None], 19)[0])


def counted(names, counter=everything):
    tally = Tally(CLASSES, GROUPS)
    for name in names:
        tally.add(counter(name))
    return tally.counted()


def assert_same(one: Counted, other: Counted):
    for field in ("table", "boundary", "instances", "calibration"):
        mine, theirs = (getattr(found, field) for found in (one, other))
        assert (mine is None) == (theirs is None)
        if mine is not None:
            assert mine.arrays().keys() == theirs.arrays().keys()
            for name, array in mine.arrays().items():
                np.testing.assert_array_equal(array, theirs.arrays()[name], err_msg=f"{field}.{name}")
    np.testing.assert_array_equal(one.confusion, other.confusion)
    np.testing.assert_array_equal(one.unscored, other.unscored)


def test_a_tally_counts_what_counting_all_at_once_does():
    found = counted(NAMES)
    prediction, label = (np.stack(maps_) for maps_ in zip(*[maps(name)[:2] for name in NAMES], strict=True))
    np.testing.assert_array_equal(found.table.counts, count(prediction, label, 19))
    np.testing.assert_array_equal(found.confusion, confusion(prediction, label, 19))
    assert found.table.groups == tuple(GROUPS[name] for name in NAMES)
    assert found.unscored.tolist() == [sum(range(7))] * 19


@pytest.mark.parametrize("counter", [everything, only_pairs])
@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_any_sharing_gives_the_same_whole(size, counter):
    shares = [counted(NAMES[::-1][rank::size], counter) for rank in range(size)]
    assert_same(merge_counted(shares, NAMES), counted(NAMES, counter))


def test_without_an_order_images_are_sorted_by_name():
    assert merge_counted([counted(NAMES[::-1])]).table.names == tuple(NAMES)


@pytest.mark.parametrize("counter", [everything, only_pairs])
def test_a_part_comes_back_under_its_own_key_alone(tmp_path, counter):
    path, part = tmp_path / "part.npz", counted(NAMES[:3], counter)
    write_part(path, part, "these weights")
    assert_same(read_part(path, "these weights"), part)
    assert read_part(path, "other weights") is None


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut short"])
def test_a_part_that_is_missing_or_damaged_is_none(tmp_path, content):
    path = tmp_path / "part.npz"
    if content is not None:
        path.write_bytes(content)
    assert read_part(path, "key") is None


def test_an_empty_tally_is_a_whole_of_no_image():
    nothing = counted([])
    assert nothing.table.names == ()
    assert_same(merge_counted([nothing, counted(NAMES)], NAMES), counted(NAMES))


def test_scores_are_those_of_what_was_counted():
    plain, full = (all_scores(counted(NAMES, counter), benchmark=BENCHMARK) for counter in (only_pairs, everything))
    assert {name: plain[name] for name in SCORE_NAMES} == score(counted(NAMES).table)
    assert "mIoU_category" in plain
    more = {"mBIoU_D", "mBIoU_I", "mBIoU_C", "ECE_D", "ECE_I", "SCE_D", "SCE_I", "mIoU_K", "miIoU", "miIoU_category"}
    assert more <= set(full)
    assert not more & set(plain)
    assert all(full[name] is not None for name in more)
    assert "mIoU_category" not in all_scores(counted(NAMES))
