"""The dearest mix-ups, against a few pixels worked out by hand."""

import numpy as np
import pytest

from segctl.metrics.costly_mixups import CostlyPair, costliest
from segctl.metrics.counts import confusion, count
from segctl.metrics.scores import score
from segctl.metrics.table import CountTable


def table_of(prediction: np.ndarray, label: np.ndarray, classes: int) -> tuple[CountTable, np.ndarray]:
    names = tuple(f"image {index}" for index in range(len(label)))
    counts = count(prediction, label, classes)
    return CountTable(names, tuple("abcd"[:classes]), counts), confusion(prediction, label, classes)


def test_a_pair_costs_what_its_pixels_would_bring() -> None:
    # a: 4 pixels, one taken for b; b: 2 pixels, right.  IoU a 3/4, b 2/3; with the one pixel right both are 1.
    label = np.array([[[0, 0, 0, 0, 1, 1]]], np.uint8)
    prediction = np.array([[[0, 0, 0, 1, 1, 1]]], np.uint8)
    (pair,) = costliest(*table_of(prediction, label, 2), 5)
    assert pair == CostlyPair("a", "b", 1, pytest.approx(25.0), pytest.approx(100 * (1 - (3 / 4 + 2 / 3) / 2)))


def test_a_class_that_is_only_ever_a_mistake_leaves_the_mean_when_it_is_corrected() -> None:
    # c is never there: IoU a 1/2, b 1, c 0; with a's pixel right c is undefined and the mean is that of a and b
    label = np.array([[[0, 0, 1]]], np.uint8)
    prediction = np.array([[[0, 2, 1]]], np.uint8)
    (pair,) = costliest(*table_of(prediction, label, 3), 5)
    assert pair.cost == pytest.approx(100 * (1.0 - 0.5))


def test_cost_is_the_score_after_minus_the_score_before() -> None:
    random = np.random.default_rng(3)
    label = random.integers(0, 4, (3, 8, 9)).astype(np.uint8)
    prediction = random.integers(0, 4, (3, 8, 9)).astype(np.uint8)
    label[0, :2] = 255
    table, matrix = table_of(prediction, label, 4)
    before = score(table)["mIoU_D"]
    pairs = costliest(table, matrix, 100)
    assert len(pairs) == 12
    assert [pair.cost for pair in pairs] == sorted((pair.cost for pair in pairs), reverse=True)
    for pair in pairs:
        wrong = (label == "abcd".index(pair.truth)) & (prediction == "abcd".index(pair.prediction))
        after = score(table_of(np.where(wrong, label, prediction), label, 4)[0])["mIoU_D"]
        assert pair.pixels == wrong.sum()
        assert pair.cost == pytest.approx(after - before)


def test_a_binary_set_is_judged_by_its_foreground() -> None:
    label = np.array([[[0, 0, 1, 1]]], np.uint8)
    prediction = np.array([[[0, 1, 1, 0]]], np.uint8)
    missed, invented = costliest(*table_of(prediction, label, 2), 5, binary=True)
    assert (missed.truth, invented.truth) == ("b", "a")
    assert missed.cost == pytest.approx(100 * (2 / 3 - 1 / 3))
    assert invented.cost == pytest.approx(100 * (1 / 2 - 1 / 3))


def test_a_perfect_prediction_has_no_costly_pairs() -> None:
    label = np.array([[[0, 1, 2]]], np.uint8)
    assert costliest(*table_of(label, label, 3), 5) == []
