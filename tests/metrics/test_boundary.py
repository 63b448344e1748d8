"""Boundary counts against masks eroded step by step, and contours small enough to see."""

import numpy as np
import pytest

from segctl.errors import InputError
from segctl.metrics.boundary import DISTANCE_FRACTION, boundary_counts, boundary_distance, boundary_scores
from segctl.metrics.table import CountTable

IGNORED = 255


def eroded(mask, steps):
    """A mask after so many 3×3 erosions; what is outside of the image is not in the mask."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        height, width = mask.shape
        mask = np.min([padded[y : y + height, x : x + width] for y in range(3) for x in range(3)], axis=0)
    return mask


def slow_counts(prediction, label, num_classes):
    """From masks, a class at a time; ignored pixels are inside every mask while it is eroded."""
    distance, valid = boundary_distance(*label.shape), label != IGNORED
    rows = []
    for index in range(num_classes):
        edges = []
        for ids in (prediction, label):
            mask = (ids == index) & valid
            edges.append(mask & ~eroded(mask | ~valid, distance))
        guess, truth = edges
        rows.append([(guess & truth).sum(), (guess & ~truth).sum(), (truth & ~guess).sum()])
    return np.array(rows)


def blocks(seed, num_classes=4, shape=(60, 90), block=10):
    random = np.random.default_rng(seed)
    coarse = random.integers(0, num_classes, (shape[0] // block, shape[1] // block))
    label = coarse.repeat(block, 0).repeat(block, 1).astype(np.uint8)
    prediction = np.roll(label, (2, 3), (0, 1))
    prediction[random.random(shape) < 0.05] = num_classes + 3  # outside the classes
    label[5:15, 30:50] = IGNORED
    label[random.random(shape) < 0.01] = IGNORED
    return prediction, label


@pytest.mark.parametrize("seed", range(4))
def test_counts_equal_those_of_masks_eroded_step_by_step(seed):
    prediction, label = blocks(seed)
    np.testing.assert_array_equal(boundary_counts(prediction, label, 4), slow_counts(prediction, label, 4))


def test_ids_beyond_a_byte_are_counted():
    prediction, label = blocks(1)
    wide = np.where(label == IGNORED, 999, label.astype(np.int32) + 290)
    found = boundary_counts(prediction.astype(np.int32) + 290, wide, 295, 999)
    np.testing.assert_array_equal(found[290:294], slow_counts(prediction, label, 4))


def test_the_distance_is_a_share_of_the_diagonal():
    assert boundary_distance(1024, 2048) == round(DISTANCE_FRACTION * 2289.733)
    assert boundary_distance(3, 4) == 1


def test_a_square_by_hand():
    # 9×9, distance 1: the ring of the 5×5 square has 16 pixels; moved by one column, 10 of each ring's pixels coincide.
    label, prediction = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    label[2:7, 2:7] = 1
    prediction[2:7, 3:8] = 1
    rings = {(y, x) for y in range(2, 7) for x in range(2, 7) if y in (2, 6) or x in (2, 6)}
    moved = {(y, x + 1) for y, x in rings}
    found = boundary_counts(prediction, label, 2)[1].tolist()
    assert found == [len(rings & moved), len(moved - rings), len(rings - moved)]
    assert len(rings) == 16


def test_the_same_contours_score_100_however_wrong_the_insides():
    label = np.zeros((40, 40), np.uint8)
    label[10:30, 10:30] = 1
    prediction = label.copy()
    prediction[18:22, 18:22] = 3  # outside the classes: makes a hole, whose rim is a boundary of its own
    perfect = boundary_counts(label, label, 2)
    assert (perfect[:, 1:] == 0).all()
    assert boundary_counts(prediction, label, 2)[1, 2] == 0


def test_an_ignored_area_makes_no_boundary():
    label = np.zeros((40, 40), np.uint8)
    label[:, 20:] = IGNORED
    counts = boundary_counts(np.zeros_like(label), label, 1)
    assert counts[0].tolist() == [40 * 20 - 38 * 19, 0, 0]  # the image's edge alone


def test_boundary_scores_follow_the_rules_of_iou():
    counts = np.array([[[3, 1, 0], [1, 0, 3]], [[2, 0, 2], [0, 0, 0]]])
    found = boundary_scores(CountTable(("x", "y"), ("a", "b"), counts))
    assert found["mBIoU_D"] == pytest.approx(100 * (5 / 8 + 1 / 4) / 2)
    assert found["mBIoU_I"] == pytest.approx(100 * ((3 / 4 + 1 / 4) / 2 + 1 / 2) / 2)
    assert found["mBIoU_C"] == pytest.approx(100 * ((3 / 4 + 1 / 2) / 2 + 1 / 4) / 2)


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError, match=r"got a prediction of shape \(2, 2\) and a label of shape \(2, 3\), wanted one"):
        boundary_counts(np.zeros((2, 2), np.uint8), np.zeros((2, 3), np.uint8), 2)
