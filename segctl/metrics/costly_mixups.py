"""Which mix-ups cost a run most: pairs of classes, ranked by the mIoU_D that confusing them costs."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segctl.metrics.counts import FN, FP, TP
from segctl.metrics.scores import ratios
from segctl.metrics.table import CountTable


class CostlyPair(NamedTuple):
    """Pixels of class `truth` that were predicted as class `prediction`.

    share: percentage of the valid pixels of `truth`.  cost: the points of mIoU_D that correcting exactly these pixels would gain.
    """

    truth: str
    prediction: str
    pixels: int
    share: float
    cost: float


def costliest(table: CountTable, confusion: NDArray[np.int64], k: int, *, binary: bool = False) -> list[CostlyPair]:
    """The k pairs of an evaluation that cost most, most expensive first, ties by name; pairs that cost nothing are left out.

    confusion: int64 (C, C) over the table's images, rows are the truth.  binary: mIoU_D is the foreground's IoU alone.
    """
    counts = table.counts.sum(0)
    before = _mean_iou(counts, binary)
    truth_pixels = counts[:, TP] + counts[:, FN]
    found = []
    for truth, prediction in zip(*np.nonzero(confusion), strict=True):
        if truth == prediction:
            continue
        pixels = int(confusion[truth, prediction])
        cost = 100 * (_mean_iou(_corrected(counts, int(truth), int(prediction), pixels), binary) - before)
        names = table.class_names[truth], table.class_names[prediction]
        found.append(CostlyPair(*names, pixels, 100 * pixels / int(truth_pixels[truth]), cost))
    return sorted((pair for pair in found if pair.cost > 0), key=lambda pair: (-pair.cost, pair.truth, pair.prediction))[:k]


def _corrected(counts: NDArray[np.int64], truth: int, prediction: int, pixels: int) -> NDArray[np.int64]:
    """The counts int64 (C, 3) if those pixels had been right."""
    right = counts.copy()
    right[truth, TP] += pixels
    right[truth, FN] -= pixels
    right[prediction, FP] -= pixels
    return right


def _mean_iou(counts: NDArray[np.int64], binary: bool) -> float:
    """Mean IoU as a fraction from counts int64 (C, 3), over the classes that occur; of class 1 alone if `binary`."""
    iou = ratios(counts)["IoU"][1:] if binary else ratios(counts)["IoU"]
    defined = iou[~np.isnan(iou)]
    return float(defined.mean()) if len(defined) else 0.0
