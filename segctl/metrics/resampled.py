"""Every score of scores.py on many resamples of the images at once.

Letters: R resamples, N images, C scored classes. `draws`, int (R, N), says how often each resample draws each image; drawing an
image twice means scoring it twice. D is a matrix product of draws and counts; I and C are products of draws and values.

The worst q percent need the values in order, v_1 <= v_2 <= ..., which is the same for all resamples. Let d_i be the draws of the
first i values, n all draws and k = `worst_count(q, n)` the draws to keep. Then the mean of the kept values is the sum over
i of min(d_i, k) / k · (v_i - v_(i+1)), where the v after the last one is 0. So it is a matrix product too, of the differences
of values and a function of the cumulative draws that does not depend on the values.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from segctl.metrics.counts import TP
from segctl.metrics.scores import (
    KINDS,
    QBAR_PERCENTS,
    WORST_PERCENT,
    Floats,
    divided,
    mean,
    pair_ratios,
    ratios,
    scored_classes,
    worst_count,
)
from segctl.metrics.table import CountTable


@dataclass(frozen=True)
class ResampledScores:
    """Scores of all resamples in percent, NaN where undefined: `scores` by name, each (R,), and IoU_D of the classes (R, C)."""

    scores: dict[str, Floats]
    iou_d: Floats


@dataclass(frozen=True)
class ImageValues:
    """What is computed once for all resamples.

    counts: (N, C, 3).  pixels: (N, 2), correct and valid pixels.  values: by average (I, C) and kind, fractions, NaN where
    undefined: I has one column of image means (N, 1), C a column per class (N, C).
    """

    counts: NDArray[np.int64]
    pixels: NDArray[np.int64]
    values: dict[str, dict[str, Floats]]


def image_values(table: CountTable, binary: bool) -> ImageValues:
    """The values of each image that `resample` draws from."""
    counts = table.counts[:, scored_classes(table, binary)]
    pairs = pair_ratios(counts, binary)
    image_means = {kind: np.array([mean(row) for row in pairs[kind]]).reshape(-1, 1) for kind in KINDS}
    return ImageValues(
        counts,
        np.stack([table.counts[..., TP].sum(1), table.valid_pixels], axis=1),
        {"I": image_means, "C": {kind: pairs[kind] for kind in KINDS}},
    )


def resample(images: ImageValues, draws: NDArray[np.int32]) -> ResampledScores:
    """Scores of each resample. draws: int32 (R, N), 0 for images without a valid pixel."""
    weights, counts = draws.astype(np.float64), images.counts
    dataset = ratios((weights @ counts.reshape(len(counts), -1)).reshape(len(draws), *counts.shape[1:]))
    scores = {"Acc": divided(*(weights @ images.pixels).T)}
    scores |= {f"m{kind}_D": _mean_over_classes(dataset[kind]) for kind in KINDS}
    for over, kinds in images.values.items():
        for kind, values in kinds.items():
            defined = ~np.isnan(values)
            means = divided(weights @ np.where(defined, values, 0), weights @ defined)
            scores[f"m{kind}_{over}"] = _mean_over_classes(means)
        for kind, worst in _worst_of_columns(kinds, draws).items():
            scores[f"m{kind}_{over}_q5"] = _mean_over_classes(worst[:, 0].T)
            scores[f"m{kind}_{over}_qbar"] = _mean_over_classes(worst[:, 1].T)
    return ResampledScores({name: 100 * found for name, found in scores.items()}, 100 * dataset["IoU"])


def _worst_of_columns(kinds: dict[str, Floats], draws: NDArray[np.int32]) -> dict[str, Floats]:
    """`worst_of` of every column of each kind's values (N, k): (k, 2, R). Kinds that order the images alike share the work."""
    found: dict[str, list[Floats]] = {kind: [] for kind in kinds}
    for columns in zip(*(values.T for values in kinds.values()), strict=True):
        alike: dict[bytes, list[tuple[str, Floats]]] = defaultdict(list)
        for kind, column in zip(kinds, columns, strict=True):
            alike[lowest_first(column).tobytes()].append((kind, column))
        for order, members in alike.items():
            worst = worst_of([column for _, column in members], np.frombuffer(order, np.intp), draws)
            for (kind, _), values in zip(members, worst, strict=True):
                found[kind].append(values)
    return {kind: np.stack(values) for kind, values in found.items()}


def lowest_first(values: Floats) -> NDArray[np.intp]:
    """The indices of the defined values of (N,), lowest value first; as many as there are values that are not NaN."""
    return np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]


def worst_of(columns: list[Floats], order: NDArray[np.intp], draws: NDArray[np.int32]) -> list[Floats]:
    """For each column (2, R): the mean of the worst 5 percent, and the average of that mean over QBAR_PERCENTS; NaN where n is 0.

    columns: values (N,), whose `lowest_first` is `order`.  draws: int (R, N).
    """
    if not order.size:
        return [np.full((2, len(draws)), np.nan)] * len(columns)
    drawn = np.cumsum(np.take(draws, order, axis=1), axis=1, dtype=np.intp)
    total = drawn[:, -1].copy()
    least, most = int(total.min()), int(total.max())
    # min(d, k) / k for every number of draws d, one row for each number n of all draws that occurs: a lookup, not a formula.
    shares = np.stack([_shares(total_drawn, most) for total_drawn in range(least, most + 1)], axis=1)  # (2, totals, draws)
    drawn += ((total - least) * (most + 1))[:, None]  # now an index into the flattened rows of `shares`
    steps = np.stack([values[order] - np.append(values[order][1:], 0) for values in columns], axis=1)
    found = np.stack([np.take(table, drawn) @ steps for table in shares.reshape(2, -1)])  # (2, R, columns)
    found[:, total == 0] = np.nan
    return list(np.moveaxis(found, -1, 0))


@lru_cache(maxsize=4096)
def _shares(total: int, most: int) -> Floats:
    """min(d, k) / k for d = 0, 1, ... `most`: (2, most + 1), for the worst 5 percent and averaged over QBAR_PERCENTS."""
    draws = np.arange(most + 1)
    kept = [worst_count(percent, total) for percent in (WORST_PERCENT, *QBAR_PERCENTS)]
    shares = [np.minimum(draws, k) / k for k in kept]
    return np.stack([shares[0], np.mean(shares[1:], axis=0)])


def _mean_over_classes(values: Floats) -> Floats:
    """(R, C) -> (R,): the mean over the classes that are defined."""
    defined = ~np.isnan(values)
    return divided(np.where(defined, values, 0).sum(1), defined.sum(1))
