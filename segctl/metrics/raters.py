"""Probabilities against several raters: BDice, the Dice score at nine thresholds of how many raters agree.

At each threshold t of 0.1, 0.2, ..., 0.9 a pixel is of a class in the truth where at least the share t of its raters said so, and
in the prediction where the class has at least the probability t. BDice is the mean of the nine Dice scores.

    BDice_D: counts are summed over all images first.  BDice_I: the BDice of each image, then the mean over images.

At a threshold at which neither shows a class, an image has no Dice score of it and the others count. Every rater counts alike,
whatever the weights of a training. Source: the QUBIQ challenge (qubiq.grand-challenge.org); zifuwanggg/JDTLosses at af6c1f6,
test.py (`test_medical`), which scores the foreground alone too, and counts an image with neither as 1.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segctl.ignored import IGNORED
from segctl.metrics.scores import mean, ratios

THRESHOLDS = tuple(step / 10 for step in range(1, 10))
RATER_SCORES = ("BDice_D", "BDice_I")


@dataclass(frozen=True, eq=False)
class RaterTable:
    """counts: int64 (N, 9, C, 3): tp, fp and fn of each image at each threshold and of each class."""

    names: tuple[str, ...]
    counts: NDArray[np.int64]


def shares_of(ratings: NDArray[np.uint8], num_classes: int) -> NDArray[np.float64]:
    """uint8 (R, H, W) class ids, 255 for no answer -> float64 (C, H, W): the share of its answers that each class got.

    A pixel without an answer has 0 of every class.
    """
    answers = (ratings != IGNORED).sum(0)
    votes = np.stack([(ratings == index).sum(0) for index in range(num_classes)])
    shares: NDArray[np.float64] = votes / np.maximum(answers, 1)
    return shares


def threshold_counts(
    probabilities: NDArray[np.floating], shares: NDArray[np.float64], valid: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """int64 (9, C, 3): tp, fp, fn at each threshold. probabilities, shares: (C, H, W), 0 to 1.  valid: (H, W)."""
    found = np.empty((len(THRESHOLDS), len(shares), 3), np.int64)
    for row, threshold in enumerate(THRESHOLDS):
        # In float32 as the probabilities are: 0.3 there is a little above the 0.3 of Python.
        guess = (probabilities >= probabilities.dtype.type(threshold)) & valid
        truth = (shares >= threshold) & valid
        hits = (guess & truth).sum((1, 2))
        found[row] = np.stack([hits, guess.sum((1, 2)) - hits, truth.sum((1, 2)) - hits], axis=-1)
    return found


def rater_scores(table: RaterTable, *, binary: bool = False, groups: Sequence[NDArray[np.intp]] = ()) -> dict[str, float | None]:
    """BDice_D and BDice_I in percent; None where nothing shows a class.

    binary: of the foreground alone, else the mean over classes.  groups: the places of each patient's images, int (n,); with them
    also BDice_G, the mean over patients of what their images give.
    """
    counts = table.counts[:, :, 1:] if binary else table.counts
    images = [_bdice(image) for image in counts]
    found = {"BDice_D": _bdice(counts.sum(0)), "BDice_I": mean(images)}
    if groups:
        found["BDice_G"] = mean([_bdice(counts[rows].sum(0)) for rows in groups])
    return {name: None if np.isnan(value) else 100 * value for name, value in found.items()}


def _bdice(counts: NDArray[np.int64]) -> float:
    """The mean Dice score over classes and thresholds, as a fraction, from counts (9, C, 3)."""
    return mean([mean(row) for row in ratios(counts)["Dice"]])
