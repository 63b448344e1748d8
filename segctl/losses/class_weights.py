"""`class_weights: auto`: a factor for each class, so that rare classes weigh more."""

import math
from collections.abc import Sequence
from typing import Literal

from segctl.errors import ArgumentError

CAP = 10.0
"""No class weighs more than this many times as much as the commonest one; a class without a pixel weighs that much."""


def balanced_weights(pixels: Sequence[int]) -> tuple[float, ...]:
    """A weight for each class: the inverse square root of its share of the pixels, capped, rounded to four decimals.

    pixels: how many pixels each class has, at least one in all.  The weights are scaled so that a pixel weighs 1 on average:
    the loss keeps its size. The root is the usual compromise between no weights and the inverse of the share, with which a class
    of few pixels takes over (as sampling by it in arXiv:1805.00932).
    """
    most, total = max(pixels), sum(pixels)
    ratios = [min(CAP, math.sqrt(most / count)) if count else CAP for count in pixels]
    average = sum(ratio * count for ratio, count in zip(ratios, pixels, strict=True)) / total
    return tuple(round(ratio / average, 4) for ratio in ratios)


def given_weights(class_weights: tuple[float, ...] | Literal["auto"] | None) -> tuple[float, ...] | None:
    """The numbers of a preset's `class_weights`. Raises ArgumentError for `auto`, which only a run with a dataset can count."""
    if class_weights == "auto":
        raise ArgumentError("class_weights is 'auto', wanted numbers: only a run counts its dataset's pixels")
    return class_weights
