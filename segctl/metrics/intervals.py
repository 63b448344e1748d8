"""How certain a score is: bootstrap intervals over images, and paired differences of runs, from counts alone.

Method: percentile bootstrap (Efron). A resample draws with replacement as many units as there are. A unit is an image or, where
the dataset names groups (drives, scenes), a whole group, because frames of one drive are not independent. Every score of
scores.py is computed on every resample, so its interval covers what that score averages over. Runs are compared on the same
resamples of the same images. An interval says how the score would vary with other images of the same kind, not with the seed.
The worst case (_q5, and _qbar for small q) of few images can lie outside its own interval: no resample contains a worse image
than the worst one seen, and many resamples do not contain that one.
"""

import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from segctl.errors import ArgumentError
from segctl.metrics.interval_warnings import interval_warning
from segctl.metrics.resampled import ImageValues, ResampledScores, image_values, resample
from segctl.metrics.scores import SCORE_NAMES, per_class, score, scored_classes
from segctl.metrics.table import CountTable

Result = TypeVar("Result")
CHUNK_CELLS = 2**18
"""Resamples times images of one chunk of work: a few MB, so that memory stays small and a chunk fits the cache."""


@dataclass(frozen=True)
class Bootstrap:
    """How many resamples, from which seed, and the confidence of an interval in percent. `threads` changes no number.

    With 2,000 resamples the ends of an interval are accurate to about 1/60 of its width; 10,000 take five times as long.
    """

    resamples: int = 2_000
    seed: int = 0
    confidence: float = 95.0
    threads: int = 1


class Interval(NamedTuple):
    """Lower and upper end, in percent."""

    low: float
    high: float


class Difference(NamedTuple):
    """The second side's score minus the first side's, in points, and the interval of that difference."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """The interval of every score, and of the IoU_D of every class; None where the score is undefined."""

    scores: dict[str, Interval | None]
    per_class: dict[str, Interval | None]
    method: str
    warning: str | None
    """Why these intervals are rough or too narrow; None where no reason is known."""


@dataclass(frozen=True)
class Differences:
    """The difference of every score, and of the IoU_D of every class; None where either side is undefined."""

    scores: dict[str, Difference | None]
    per_class: dict[str, Difference | None]
    method: str
    warning: str | None


def intervals(table: CountTable, *, binary: bool = False, how: Bootstrap | None = None) -> Intervals:
    """The interval of every score of `scores.score`, and of every class's IoU_D."""
    return mean_intervals([table], binary=binary, how=how)


def mean_intervals(tables: Sequence[CountTable], *, binary: bool = False, how: Bootstrap | None = None) -> Intervals:
    """The intervals of the mean over several runs, such as seeds. Raises ArgumentError where they are not of the same images."""
    how, first = how or Bootstrap(), tables[0]
    runs = [image_values(table, binary) for table in (first, *(_aligned(first, other) for other in tables[1:]))]
    units = _units(first)
    found = _join(list(_on_draws(partial(_resampled_mean, runs), units, how)))
    return Intervals(
        {name: _interval(found.scores[name], how) for name in SCORE_NAMES},
        {name: _interval(column, how) for name, column in zip(_classes(first, binary), found.iou_d.T, strict=True)},
        _method(first, units, how),
        interval_warning(first),
    )


def paired_differences(
    first: Sequence[CountTable], second: Sequence[CountTable], *, binary: bool = False, how: Bootstrap | None = None
) -> Differences:
    """The mean over the runs of `second` minus the mean over the runs of `first`, with intervals of the difference.

    Paired: both sides are scored on the same resamples, so what makes an image hard for both cancels out.
    Raises ArgumentError where the runs were not scored on the same images against the same ground truth.
    """
    how, one = how or Bootstrap(), first[0]
    before, after = ([_aligned(one, run) for run in runs] for runs in (first, second))
    units = _units(one)
    ready = [[image_values(run, binary) for run in runs] for runs in (before, after)]
    parts = list(_on_draws(lambda draws: [_resampled_mean(runs, draws) for runs in ready], units, how))
    low, high = (_join([pair[side] for pair in parts]) for side in (0, 1))
    scores = _mean_gaps(_scores(before, binary), _scores(after, binary))
    classes = _mean_gaps(_iou_d(before, binary), _iou_d(after, binary))
    return Differences(
        {name: _difference(scores[name], high.scores[name] - low.scores[name], how) for name in SCORE_NAMES},
        {name: _difference(classes[name], column, how) for name, column in zip(classes, (high.iou_d - low.iou_d).T, strict=True)},
        _method(one, units, how),
        interval_warning(one),
    )


def _units(table: CountTable) -> NDArray[np.int64]:
    """int64 (N,): the unit (0, 1, ...) of each image, which is its group, or itself; -1 for images without a valid pixel."""
    valid = table.valid_pixels > 0
    labels = list(table.groups) if table.groups is not None else list(table.names)
    # Resamples of one single group would all be equal, so its images are drawn instead; `interval_warning` says so.
    if len({label for label, used in zip(labels, valid, strict=True) if used}) == 1:
        labels = list(table.names)
    units = np.full(len(labels), -1, np.int64)
    if valid.any():
        units[valid] = np.unique(np.array(labels, dtype=np.str_)[valid], return_inverse=True)[1]
    return units


def _on_draws(work: Callable[[NDArray[np.int32]], Result], units: NDArray[np.int64], how: Bootstrap) -> Iterator[Result]:
    """The result of `work` for each chunk of draws int32 (R, N), in order, as many chunks at a time as there are threads."""
    draws = _draws(units, how)
    with ThreadPoolExecutor(how.threads) as threads:
        while chunks := list(islice(draws, how.threads)):
            yield from threads.map(work, chunks)


def _draws(units: NDArray[np.int64], how: Bootstrap) -> Iterator[NDArray[np.int32]]:
    """How often each image is drawn, int32 (R, N), chunk by chunk. units: int64 (N,). The seed alone decides the draws."""
    count = int(units.max(initial=-1)) + 1
    random = np.random.default_rng(how.seed)
    # The chunk's size depends on the number of images alone, so threads and chunks never change which numbers are drawn.
    rows = max(1, min(how.resamples, CHUNK_CELLS // max(1, len(units))))
    for start in range(0, how.resamples, rows):
        size = min(rows, how.resamples - start)
        # Resample r counts its units in bins r · count ..., so one bincount serves all resamples of the chunk.
        drawn = random.integers(0, max(1, count), (size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.int32)
        # Unit -1 indexes the last column, which this adds and which is 0.
        yield np.concatenate([times, np.zeros((size, 1), np.int32)], axis=1)[:, units]


def _join(parts: list[ResampledScores]) -> ResampledScores:
    scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in SCORE_NAMES}
    return ResampledScores(scores, np.concatenate([part.iou_d for part in parts]))


def _interval(values: NDArray[np.float64], how: Bootstrap) -> Interval | None:
    """Percentiles of the values (R,) of the resamples on which the score is defined; None without any."""
    found = values[~np.isnan(values)]
    if not found.size:
        return None
    tail = (100 - how.confidence) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    return Interval(float(low), float(high))


def _resampled_mean(runs: Sequence[ImageValues], draws: NDArray[np.int32]) -> ResampledScores:
    """The mean over the runs on each resample of `draws` int32 (R, N); undefined where any run's score is."""
    found = [resample(run, draws) for run in runs]
    scores = {name: np.mean([one.scores[name] for one in found], axis=0) for name in SCORE_NAMES}
    return ResampledScores(scores, np.mean([one.iou_d for one in found], axis=0))


def _scores(runs: Sequence[CountTable], binary: bool) -> list[dict[str, float | None]]:
    return [score(run, binary=binary) for run in runs]


def _iou_d(runs: Sequence[CountTable], binary: bool) -> list[dict[str, float | None]]:
    return [{str(row["class"]): _number(row["IoU_D"]) for row in per_class(run, binary=binary)} for run in runs]


def _mean_gaps(before: list[dict[str, float | None]], after: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Mean over the runs of `after` minus mean over those of `before`, by name; None where any of them is undefined."""

    def mean(runs: list[dict[str, float | None]], name: str) -> float:
        return statistics.fmean(np.nan if (value := run[name]) is None else value for run in runs)

    found = {name: mean(after, name) - mean(before, name) for name in before[0]}
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def _difference(value: float | None, values: NDArray[np.float64], how: Bootstrap) -> Difference | None:
    """The difference measured, and its interval from the resampled differences float64 (R,); None if either is undefined."""
    found = _interval(values, how)
    return None if value is None or found is None else Difference(value, *found)


def _number(cell: str | int | float | None) -> float | None:
    return float(cell) if cell is not None else None


def _aligned(first: CountTable, second: CountTable) -> CountTable:
    """The second table with its images in the first one's order."""
    if first.class_names != second.class_names:
        raise ArgumentError(
            f"cannot compare counts of classes {', '.join(first.class_names)} and {', '.join(second.class_names)}"
        )
    if odd := sorted(set(first.names) ^ set(second.names)):
        raise ArgumentError(f"cannot compare runs that were not scored on the same images: only one of them has '{odd[0]}'")
    aligned = second.rows(first.names)
    if differing := np.flatnonzero(first.valid_pixels != aligned.valid_pixels).tolist():
        raise ArgumentError(
            f"cannot compare runs that were not scored against the same labels: image '{first.names[differing[0]]}' has "
            f"{first.valid_pixels[differing[0]]} valid pixels in one and {aligned.valid_pixels[differing[0]]} in the other"
        )
    return aligned


def _classes(table: CountTable, binary: bool) -> tuple[str, ...]:
    return table.class_names[scored_classes(table, binary)]


def _method(table: CountTable, units: NDArray[np.int64], how: Bootstrap) -> str:
    """A sentence on the bootstrap. units: int64 (N,), the group of each image, -1 for one that is left out."""
    images, count = int((units >= 0).sum()), int(units.max(initial=-1)) + 1
    over = f"{images:,} images" if count == images else f"{count:,} groups of {images:,} images"
    return f"{how.confidence:g} % percentile bootstrap over {over}, {how.resamples:,} resamples, seed {how.seed}"
