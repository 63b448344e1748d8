"""Several people's label maps of one picture: stored once, as which combination of answers each pixel got.

A pixel's *ballot* is what each rater called it. A sample has few different ballots (two raters of two classes: four), so a plane
of uint8 numbers and a short table hold all maps exactly. Such a plane is scaled, cropped and flipped like a label map. The soft
label of a pixel is the mean of its ballot; the raters' weights, if any, are those of the whole picture.
"""

from dataclasses import dataclass
from functools import reduce

import numpy as np

from segctl.errors import InputError
from segctl.ignored import IGNORED

MAX_BALLOTS = 254
"""How many different ballots a sample may have: 254 and 255 stand for pixels without a label, as in label maps."""


@dataclass(frozen=True)
class RaterRecord:
    """ballots: for each number in the sample's plane, the class id that each of R raters gave, 255 where one gave none.

    weights: of each rater, 0 to 1, the Dice score against the majority, see `dice_weights`.
    """

    ballots: tuple[tuple[int, ...], ...]
    weights: tuple[float, ...]

    def table(self) -> np.ndarray:
        """uint8 (256, R): the ballot of every number; 255 for numbers of no ballot."""
        table = np.full((256, len(self.weights)), IGNORED, np.uint8)
        table[: len(self.ballots)] = self.ballots
        return table

    def majority_table(self) -> np.ndarray:
        """uint8 (256,): the majority of every ballot."""
        return majority(self.table().T[:, None]).reshape(256)


@dataclass(frozen=True)
class Votes:
    """numbers: uint8 (H, W), a row of `record.ballots` for each pixel."""

    numbers: np.ndarray
    record: RaterRecord


def majority(raters: np.ndarray) -> np.ndarray:
    """uint8 (R, H, W) class ids, 255 for no answer -> uint8 (H, W): the class with most answers, 255 without any.

    Of classes with equally many answers the first one counts, so half of the raters do not make a foreground: with two classes
    it takes R // 2 + 1 of them, as in zifuwanggg/JDTLosses at 68ce8ac, datas/prepare/prepare_qubiq.py.
    """
    winner, most = np.full(raters.shape[1:], IGNORED, np.uint8), np.zeros(raters.shape[1:], np.int64)
    for class_id in np.flatnonzero(np.bincount(raters.ravel(), minlength=256)[:IGNORED]).tolist():
        answers = (raters == class_id).sum(0)
        winner[answers > most] = class_id
        most = np.maximum(most, answers)
    return winner


def dice_weights(raters: np.ndarray, num_classes: int, binary: bool) -> tuple[float, ...]:
    """The Dice score of each rater against the majority: the weights of arXiv:2303.16296 Sec. 3.

    raters: uint8 (R, H, W), 255 for no answer. The score is the mean over the classes that the rater or the majority shows, of a
    binary dataset over the foreground alone; 1 where neither shows any. Pixels without an answer of the rater do not count.
    The authors' code (as above) gives 1 to a rater who shares no pixel with the majority; here it is 0.
    """
    agreed = majority(raters)
    found = []
    for rater in raters:
        valid = rater != IGNORED
        size = num_classes + 1
        pairs = np.bincount(
            (rater[valid].astype(np.int64) * size + np.minimum(agreed[valid], num_classes)), minlength=size * size
        )
        table = pairs.reshape(size, size)[:num_classes, :num_classes]
        whole = (table.sum(0) + table.sum(1))[1 if binary else 0 :]
        shown = whole > 0
        dice = 2 * table.diagonal()[1 if binary else 0 :][shown] / whole[shown]
        found.append(float(dice.mean()) if shown.any() else 1.0)
    return tuple(found)


def votes_of(what: object, raters: np.ndarray, num_classes: int, *, binary: bool) -> Votes:
    """The ballots of label maps uint8 (R, H, W), 255 for no answer. Raises InputError, naming the sample `what`, for too many."""
    # Two maps at a time, and the pairs are numbered anew after each: the numbers never grow beyond the pixels.
    flat = raters.reshape(len(raters), -1)
    numbers = reduce(lambda one, two: np.unique(one * 256 + two, return_inverse=True)[1], flat.astype(np.int64))
    _, first, numbers = np.unique(numbers, return_index=True, return_inverse=True)
    if len(first) > MAX_BALLOTS:
        raise InputError(
            f"the raters of {what} disagree in {len(first)} different ways, wanted at most {MAX_BALLOTS}",
            "merge classes in the class table, or give fewer raters",
        )
    ballots = tuple(tuple(row) for row in flat[:, first].T.tolist())
    record = RaterRecord(ballots, dice_weights(raters, num_classes, binary))
    return Votes(numbers.reshape(raters.shape[1:]).astype(np.uint8), record)
