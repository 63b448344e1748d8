"""Every score of scores.py on many resamples of the images at once.

Letters: R resamples, N images, C scored classes. A resample is how often each image is drawn, int (R, N); drawing an image twice
is scoring it twice. D is a matrix product of draws and counts; I and C are products of draws and values. The worst q percent
need the values in order: they are sorted once, and cumulative draws say where the q percent end in each resample.
"""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segctl.metrics.counts import TP
from segctl.metrics.scores import KINDS, QBAR_PERCENTS, WORST_PERCENT, mean, pair_ratios, ratios, scored_classes
from segctl.metrics.table import CountTable

Floats = NDArray[np.float64]
PERCENTS = (WORST_PERCENT, *QBAR_PERCENTS)


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
            of_percents = [_mean_over_classes(worst[:, q].T) for q in range(len(PERCENTS))]
            scores[f"m{kind}_{over}_q5"] = of_percents[0]
            scores[f"m{kind}_{over}_qbar"] = np.mean(of_percents[1:], axis=0)
    return Resampled({name: 100 * found for name, found in scores.items()}, 100 * dataset["IoU"])


def _worst_of_columns(kinds: dict[str, Floats], draws: NDArray[np.int32]) -> dict[str, Floats]:
    """`worst_of` for each column of each kind's values: (k, Q, R). Kinds that order the images alike share the work."""
    found: dict[str, list[Floats]] = {kind: [] for kind in kinds}
    for columns in zip(*(values.T for values in kinds.values()), strict=True):
        alike: dict[bytes, list[tuple[str, Floats]]] = defaultdict(list)
        for kind, column in zip(kinds, columns, strict=True):
            alike[_order(column).tobytes()].append((kind, column))
        for order, members in alike.items():
            worst = worst_of([column for _, column in members], np.frombuffer(order, np.intp), draws)
            for (kind, _), values in zip(members, worst, strict=True):
                found[kind].append(values)
    return {kind: np.stack(values) for kind, values in found.items()}


def _order(values: Floats) -> NDArray[np.intp]:
    """The places of the defined values, lowest first."""
    return np.argsort(values, kind="stable")[: int((~np.isnan(values)).sum())]


def worst_of(columns: list[Floats], order: NDArray[np.intp], draws: NDArray[np.int32]) -> list[Floats]:
    """Mean of the lowest max(1, floor(q n / 100)) of the n drawn values for every q of PERCENTS: (Q, R), NaN where n is 0.

    columns: values (N,) that `order` puts in order, lowest first, leaving out those that do not count.  draws: (R, N).
    """
    if not order.size:
        return [np.full((len(PERCENTS), len(draws)), np.nan)] * len(columns)
    times = np.take(draws, order, axis=1)
    drawn = np.cumsum(times, axis=1, dtype=np.int32)
    total = drawn[:, -1]
    kept = np.maximum(1, np.array(PERCENTS)[:, None] * total // 100)  # (Q, R)
    # One search in all rows at once: row r is lifted above all rows before it.
    lift = np.arange(len(draws)) * (int(total.max()) + 1)
    places = np.searchsorted((drawn + lift[:, None]).ravel(), (kept + lift).ravel())
    places = np.minimum(places, drawn.size - 1)  # where nothing was drawn at all
    spare = drawn.ravel()[places] - kept.ravel()  # the last value may be drawn more often than is kept
    found = []
    for values in columns:
        ordered = values[order]
        summed = times * ordered
        np.cumsum(summed, axis=1, out=summed)  # in place: new memory would cost more than the sum
        lowest = summed.ravel()[places] - spare * ordered[places % len(order)]
        found.append(np.where(total > 0, lowest.reshape(kept.shape) / kept, np.nan))
    return found


def _mean_over_classes(values: Floats) -> Floats:
    """(R, C) -> (R,), over the defined ones."""
    defined = ~np.isnan(values)
    return _share(np.where(defined, values, 0).sum(1), defined.sum(1))


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> Floats:
    """part / whole, NaN where whole is 0."""
    found: Floats = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)
    return found
