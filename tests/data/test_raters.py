"""Votes of several raters, against a pixel-by-pixel reference and by hand."""

from collections import Counter

import numpy as np
import pytest

from segctl.data.raters import MAX_BALLOTS, RaterRecord, dice_weights, majority, votes_of
from segctl.errors import InputError


def slow_majority(raters: np.ndarray) -> np.ndarray:
    """One pixel at a time: the class with most answers, the lowest of several, 255 without an answer."""
    out = np.full(raters.shape[1:], 255, np.uint8)
    for place in np.ndindex(*out.shape):
        answers = Counter(int(rater[place]) for rater in raters if rater[place] != 255)
        if answers:
            out[place] = min(answers, key=lambda label: (-answers[label], label))
    return out


@pytest.mark.parametrize(("count", "classes"), [(1, 2), (2, 2), (3, 4), (7, 2), (12, 3)])
def test_ballots_hold_every_map_exactly_and_the_majority_is_the_slow_one(count: int, classes: int) -> None:
    random = np.random.default_rng(count)
    raters = random.integers(0, classes, (count, 4, 9)).astype(np.uint8)
    raters[random.random(raters.shape) < 0.1] = 255
    votes = votes_of("it", raters, classes, binary=False)
    assert np.array_equal(votes.record.table()[votes.numbers].transpose(2, 0, 1), raters)
    assert np.array_equal(majority(raters), slow_majority(raters))
    assert np.array_equal(votes.record.majority_table()[votes.numbers], slow_majority(raters))


def test_half_of_the_raters_make_no_foreground() -> None:
    """R // 2 + 1 of them do, as in the reference."""
    maps = np.array([[[1, 1, 1]], [[1, 1, 0]], [[1, 0, 0]], [[1, 0, 0]]], np.uint8)
    assert majority(maps).tolist() == [[1, 0, 0]]


def test_weights_by_hand() -> None:
    """Majority 1 1 0 0. First rater the same: 1. Second 1 0 0 0: 2·1 / (1 + 2). Third 1 1 1 1: 2·2 / (4 + 2)."""
    maps = np.array([[[1, 1, 0, 0]], [[1, 0, 0, 0]], [[1, 1, 1, 1]]], np.uint8)
    assert dice_weights(maps, 2, binary=True) == pytest.approx((1.0, 2 / 3, 2 / 3))
    background = np.array([1.0, 2 * 2 / (3 + 2), 0.0])
    assert dice_weights(maps, 2, binary=False) == pytest.approx((background + np.array([1.0, 2 / 3, 2 / 3])) / 2)


def test_weights_leave_pixels_out_that_a_rater_did_not_answer_and_an_empty_picture_weighs_1() -> None:
    maps = np.array([[[1, 0, 0]], [[255, 0, 0]], [[1, 0, 0]]], np.uint8)
    assert dice_weights(maps, 2, binary=True) == (1.0, 1.0, 1.0)


def test_too_many_ballots_are_refused() -> None:
    maps = np.stack(np.divmod(np.arange(MAX_BALLOTS + 1), 16)).astype(np.uint8).reshape(2, 1, -1)
    assert len(votes_of("it", maps[..., 1:], 16, binary=False).record.ballots) == MAX_BALLOTS
    with pytest.raises(InputError, match="the raters of it disagree in 255 different ways, wanted at most 254"):
        votes_of("it", maps, 16, binary=False)


def test_numbers_of_no_ballot_are_no_answer() -> None:
    record = RaterRecord(((0, 1), (1, 1)), (0.5, 1.0))
    assert record.table()[[0, 1, 2, 255]].tolist() == [[0, 1], [1, 1], [255, 255], [255, 255]]
    assert record.majority_table()[[0, 1, 2]].tolist() == [0, 1, 255]
