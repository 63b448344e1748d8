"""Every score of scores.py on many resamples of the images at once.

Letters: R resamples, N images, C scored classes. A resample is how often each image is drawn, int (R, N); drawing an image twice
is scoring it twice. D is a matrix product of draws and counts; I and C are products of draws and values.

The worst q percent need the values in order, v_1 <= v_2 <= ..., which is found once. With d_i draws of the first i of them and
k = max(1, floor(q n / 100)) of all n draws kept, their mean is the sum of min(d_i, k) / k · (v_i - v_(i+1)), the last v being 0.
So it is a matrix product too, of a function of the cumulative draws that does not depend on the values.
"""

from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from segctl.metrics.counts import TP
from segctl.metrics.scores import KINDS, QBAR_PERCENTS, WORST_PERCENT, mean, pair_ratios, ratios, scored_classes
from segctl.metrics.table import CountTable

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Resampled:
    """In percent, NaN where undefined: `scores` by name, each (R,), and IoU_D of the classes (R, C)."""

    scores: dict[str, Floats]
    iou_d: Floats


@dataclass(frozen=True)
class Scored:
    """What does not change from resample to resample.

    counts: (N, C, 3).  pixels: (N, 2), correct and valid ones.  values: by average and kind, NaN where undefined: one column of
    image means for I, a column per class for C.
    """

    counts: NDArray[np.int64]
    pixels: NDArray[np.int64]
    values: dict[str, dict[str, Floats]]


def prepare(table: CountTable, binary: bool) -> Scored:
    """The table, ready to be resampled."""
    counts = table.counts[:, scored_classes(table, binary)]
    pairs = pair_ratios(counts, binary)
    image_means = {kind: np.array([mean(row) for row in pairs[kind]]).reshape(-1, 1) for kind in KINDS}
    return Scored(
        counts,
        np.stack([table.counts[..., TP].sum(1), table.valid_pixels], axis=1),
        {"I": image_means, "C": {kind: pairs[kind] for kind in KINDS}},
    )


def resample(scored: Scored, draws: NDArray[np.int32]) -> Resampled:
    """Scores of each resample. draws: (R, N), 0 for images without a valid pixel."""
    weights, counts = draws.astype(np.float64), scored.counts
    dataset = ratios((weights @ counts.reshape(len(counts), -1)).reshape(len(draws), *counts.shape[1:]))
    scores = {"Acc": _share(*(weights @ scored.pixels).T)}
    scores |= {f"m{kind}_D": _mean_over_classes(dataset[kind]) for kind in KINDS}
    for over, kinds in scored.values.items():
        for kind, values in kinds.items():
            defined = ~np.isnan(values)
            means = _share(weights @ np.where(defined, values, 0), weights @ defined)
            scores[f"m{kind}_{over}"] = _mean_over_classes(means)
        for kind, worst in _worst_of_columns(kinds, draws).items():
            scores[f"m{kind}_{over}_q5"] = _mean_over_classes(worst[:, 0].T)
            scores[f"m{kind}_{over}_qbar"] = _mean_over_classes(worst[:, 1].T)
    return Resampled({name: 100 * found for name, found in scores.items()}, 100 * dataset["IoU"])


def _worst_of_columns(kinds: dict[str, Floats], draws: NDArray[np.int32]) -> dict[str, Floats]:
    """`worst_of` for each column of each kind's values: (k, 2, R). Kinds that order the images alike share the work."""
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
    """The places of the defined values of (N,), the lowest value's first; as many as there are values that are not NaN."""
    return np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]


def worst_of(columns: list[Floats], order: NDArray[np.intp], draws: NDArray[np.int32]) -> list[Floats]:
    """The worst 5 percent's mean, and the average of the worst q percent's over QBAR_PERCENTS: (2, R), NaN where n is 0.

    columns: values (N,), whose `lowest_first` is `order`.  draws: (R, N).
    """
    if not order.size:
        return [np.full((2, len(draws)), np.nan)] * len(columns)
    drawn = np.cumsum(np.take(draws, order, axis=1), axis=1, dtype=np.intp)
    total = drawn[:, -1].copy()
    least, most = int(total.min()), int(total.max())
    shares = np.stack([_shares(total_drawn, most) for total_drawn in range(least, most + 1)], axis=1)  # (2, totals, draws)
    drawn += ((total - least) * (most + 1))[:, None]  # from here on a place in a table of shares
    steps = np.stack([values[order] - np.append(values[order][1:], 0) for values in columns], axis=1)
    found = np.stack([np.take(table, drawn) @ steps for table in shares.reshape(2, -1)])  # (2, R, columns)
    found[:, total == 0] = np.nan
    return list(np.moveaxis(found, -1, 0))


@lru_cache(maxsize=4096)
def _shares(total: int, most: int) -> Floats:
    """How much of the worst mean the lowest 0, 1, ... `most` draws are: (2, most + 1), of 5 percent and of QBAR_PERCENTS."""
    draws = np.arange(most + 1)
    kept = [max(1, percent * total // 100) for percent in (WORST_PERCENT, *QBAR_PERCENTS)]
    shares = [np.minimum(draws, k) / k for k in kept]
    return np.stack([shares[0], np.mean(shares[1:], axis=0)])


def _mean_over_classes(values: Floats) -> Floats:
    """(R, C) -> (R,), over the defined ones."""
    defined = ~np.isnan(values)
    return _share(np.where(defined, values, 0).sum(1), defined.sum(1))


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> Floats:
    """part / whole, NaN where whole is 0."""
    found: Floats = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return found
