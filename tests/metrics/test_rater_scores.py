"""BDice: one pixel and one threshold at a time, and by hand."""

from pathlib import Path

import numpy as np
import pytest

from segctl.metrics.raters import THRESHOLDS, RaterTable, rater_scores, shares_of, threshold_counts
from segctl.metrics.store import load_counts, load_part, save_counts, save_part
from segctl.metrics.tally import ImageCounts, Tally, merge_counts


def slow_dice(probability: np.ndarray, votes: np.ndarray, raters: int, valid: np.ndarray) -> float:
    """Of the foreground, in whole numbers of tenths: probability and votes (N,)."""
    found = []
    for tenth in range(1, 10):
        tp = fp = fn = 0
        for p, vote, counts in zip(probability, votes, valid, strict=True):
            if counts:
                guess, truth = p >= np.float32(tenth / 10), vote * 10 >= tenth * raters
                tp, fp, fn = tp + (guess and truth), fp + (guess and not truth), fn + (truth and not guess)
        if tp + fp + fn:
            found.append(2 * tp / (2 * tp + fp + fn))
    return float(np.mean(found))


@pytest.mark.parametrize("raters", [3, 7, 10])
def test_bdice_is_the_mean_over_thresholds_of_the_slow_dice(raters: int) -> None:
    random = np.random.default_rng(raters)
    ratings = random.integers(0, 2, (raters, 1, 60)).astype(np.uint8)
    valid = random.random((1, 60)) < 0.9
    foreground = random.random((1, 60)).astype(np.float32)
    probabilities = np.stack([1 - foreground, foreground])
    counts = threshold_counts(probabilities, shares_of(ratings, 2), valid)
    wanted = slow_dice(foreground[0], ratings.sum(0)[0], raters, valid[0])
    found = rater_scores(RaterTable(("a",), counts[None]), binary=True)
    assert found["BDice_D"] == pytest.approx(100 * wanted)
    assert found["BDice_I"] == pytest.approx(100 * wanted)


def test_a_share_counts_at_its_own_threshold() -> None:
    """Of ten raters three: 0.3 and below. A probability of 0.3 in float32 too."""
    ratings = np.array([[[1]]] * 3 + [[[0]]] * 7, np.uint8)
    counts = threshold_counts(np.array([[[0.7]], [[0.3]]], np.float32), shares_of(ratings, 2), np.ones((1, 1), bool))
    assert counts[:, 1].tolist() == [[1, 0, 0]] * 3 + [[0, 0, 0]] * 6
    assert THRESHOLDS[2] == 0.3


def test_two_images_by_hand() -> None:
    """First image: the foreground is right at all thresholds, 1. Second: it is missed at all thresholds, 0."""
    counts = np.zeros((2, 9, 2, 3), np.int64)
    counts[0, :, 1] = (3, 0, 0)
    counts[1, :, 1] = (0, 0, 1)
    assert rater_scores(RaterTable(("a", "b"), counts), binary=True) == {
        "BDice_D": pytest.approx(100 * 6 / 7),
        "BDice_I": pytest.approx(50),
    }
    assert rater_scores(RaterTable(("a",), counts[:1, :, :1].repeat(2, 2) * 0), binary=True) == {"BDice_D": None, "BDice_I": None}


def test_a_pixel_without_an_answer_has_no_share() -> None:
    assert shares_of(np.array([[[255, 1]], [[255, 0]]], np.uint8), 2).tolist() == [[[0, 0.5]], [[0, 0.5]]]


def test_parts_of_an_evaluation_keep_the_counts_and_join_by_image(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    parts = []
    for index, names in enumerate((("b", "d"), ("c", "a"))):
        tally = Tally(("sane", "ill"))
        for name in names:
            pairs = random.integers(0, 9, (2, 3))
            tally.add(ImageCounts(name, pairs, raters=np.full((9, 2, 3), ord(name))))
        save_part(tmp_path / f"part-{index}.npz", tally.counts(), "key")
        parts.append(load_part(tmp_path / f"part-{index}.npz", "key"))
    whole = merge_counts(parts)
    assert whole.raters.names == ("a", "b", "c", "d")
    assert whole.raters.counts[:, 0, 0, 0].tolist() == [97, 98, 99, 100]
    save_counts(tmp_path, whole)
    assert np.array_equal(load_counts(tmp_path / "counts.npz").raters.counts, whole.raters.counts)
