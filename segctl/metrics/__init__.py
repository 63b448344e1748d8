"""Predictions and labels -> integer counts -> scores with intervals.

    counts.py       one image's prediction and label -> (truth, prediction) pairs, and tp, fp, fn
    boundary.py  calibration.py  instances.py  cityscapes_scores.py    what else can be counted, and its scores
    tally.py        ImageCounts of one image after another -> Tally, which adds them up -> EvaluationCounts of all images
    table.py        CountTable: tp, fp, fn of each image and class; the part of EvaluationCounts that most scores need
    store.py        EvaluationCounts <-> npz files
    scores.py       CountTable -> every score, per class, per image; the rules of each number
    fine_grained.py FineGrainedIoU: all of it as a metric object for a loop of your own
    intervals.py    CountTable -> bootstrap intervals, and paired differences of runs (resampled.py does the arithmetic)

Counts come first, because scores of any kind can be computed from them again, without images and without a network, and because
integers of several processes add up to the same numbers in any order.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segctl.metrics.fine_grained import FineGrainedIoU

__all__ = ["FineGrainedIoU"]


def __getattr__(name: str) -> Any:
    if name == "FineGrainedIoU":  # on first use: where torchmetrics is installed, it brings torch
        from segctl.metrics.fine_grained import FineGrainedIoU

        return FineGrainedIoU
    raise AttributeError(f"module 'segctl.metrics' has no attribute '{name}'")
