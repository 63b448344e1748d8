"""How sure a score is: intervals by bootstrap over images, and the paired difference of two runs, from counts alone.

Method: percentile bootstrap (Efron). A resample draws as many units as there are, with replacement; a unit is an image, or, where
the dataset names groups (drives, scenes), a whole group, because frames of one drive are not independent. Every score of
scores.py is computed on every resample, so its interval covers what that score averages over. Two runs are compared on the same
resamples of the same images. The interval says what other images of the same kind would do, not what another seed would.
A worst case (_q5, and the low q of _qbar) of few images can lie below its own interval: no resample holds a worse image than the
worst one seen, while most resamples leave it out once or more.
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

from segctl.errors import InputError
from segctl.metrics.interval_warnings import warning
from segctl.metrics.resampled import Resampled, Scored, prepare, resample
from segctl.metrics.scores import SCORE_NAMES, per_class, score, scored_classes
from segctl.metrics.table import CountTable

Found = TypeVar("Found")
CHUNK_CELLS = 2**18
"""Resamples times images that are worked on at once: a few MB, so that memory stays small and caches warm."""


@dataclass(frozen=True)
class Bootstrap:
    """How many resamples, from which seed, and how much of them an interval covers, in percent. Threads change no number.

    Of 2,000 resamples the ends of an interval are known to about a sixtieth of its width; ten thousand cost five times as much.
    """

    resamples: int = 2_000
    seed: int = 0
    confidence: float = 95.0
    threads: int = 1


class Interval(NamedTuple):
    """Lower and upper end, in the score's unit (percent)."""

    low: float
    high: float


class Difference(NamedTuple):
    """A second run's score minus a first one's, in points, and the interval of that."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Intervals:
    """By score, and by class for its IoU_D; None where the score is undefined."""

    scores: dict[str, Interval | None]
    per_class: dict[str, Interval | None]
    method: str
    warning: str | None
    """What makes these intervals less sure than they look."""


@dataclass(frozen=True)
class Differences:
    """By score, and by class for its IoU_D; None where either run's is undefined."""

    scores: dict[str, Difference | None]
    per_class: dict[str, Difference | None]
    method: str
    warning: str | None


def intervals(table: CountTable, *, binary: bool = False, how: Bootstrap | None = None) -> Intervals:
    """The interval of every score of `scores.score`, and of every class's IoU_D."""
    return mean_intervals([table], binary=binary, how=how)


def mean_intervals(tables: Sequence[CountTable], *, binary: bool = False, how: Bootstrap | None = None) -> Intervals:
    """The same for the mean over several runs on the same images, such as seeds. Raises InputError where images differ."""
    how, first = how or Bootstrap(), tables[0]
    runs = [prepare(table, binary) for table in (first, *(_aligned(first, other) for other in tables[1:]))]
    units = _units(first)
    found = _join(list(_on_draws(partial(_resampled_mean, runs), units, how)))
    return Intervals(
        {name: _interval(found.scores[name], how) for name in SCORE_NAMES},
        {name: _interval(column, how) for name, column in zip(_classes(first, binary), found.iou_d.T, strict=True)},
        _method(first, units, how),
        warning(first),
    )


def differences(first: CountTable, second: CountTable, *, binary: bool = False, how: Bootstrap | None = None) -> Differences:
    """`second` minus `first`, paired: both are scored on the same resamples of the same images.

    Raises InputError where the two were not scored on the same images against the same ground truth.
    """
    return mean_differences([first], [second], binary=binary, how=how)


def mean_differences(
    first: Sequence[CountTable], second: Sequence[CountTable], *, binary: bool = False, how: Bootstrap | None = None
) -> Differences:
    """The same for the means over several runs on either side."""
    how, one = how or Bootstrap(), first[0]
    before, after = ([_aligned(one, run) for run in runs] for runs in (first, second))
    units = _units(one)
    ready = [[prepare(run, binary) for run in runs] for runs in (before, after)]
    parts = list(_on_draws(lambda draws: [_resampled_mean(runs, draws) for runs in ready], units, how))
    low, high = (_join([pair[side] for pair in parts]) for side in (0, 1))
    scores = _gains(_scores(before, binary), _scores(after, binary))
    classes = _gains(_iou_d(before, binary), _iou_d(after, binary))
    return Differences(
        {name: _difference(scores[name], high.scores[name] - low.scores[name], how) for name in SCORE_NAMES},
        {name: _difference(classes[name], column, how) for name, column in zip(classes, (high.iou_d - low.iou_d).T, strict=True)},
        _method(one, units, how),
        warning(one),
    )


def _units(table: CountTable) -> NDArray[np.int64]:
    """The unit (0, 1, ...) of each image: its group where several are known, else itself; -1 for images that count nowhere."""
    valid = table.valid_pixels > 0
    labels = list(table.groups) if table.groups is not None else list(table.names)
    if len({label for label, used in zip(labels, valid, strict=True) if used}) == 1:
        labels = list(table.names)
    units = np.full(len(labels), -1, np.int64)
    if valid.any():
        units[valid] = np.unique(np.array(labels, dtype=np.str_)[valid], return_inverse=True)[1]
    return units


def _on_draws(work: Callable[[NDArray[np.int32]], Found], units: NDArray[np.int64], how: Bootstrap) -> Iterator[Found]:
    """The work on each chunk of draws, in their order, as many chunks at a time as there are threads."""
    draws = _draws(units, how)
    with ThreadPoolExecutor(how.threads) as threads:
        while chunks := list(islice(draws, how.threads)):
            yield from threads.map(work, chunks)


def _draws(units: NDArray[np.int64], how: Bootstrap) -> Iterator[NDArray[np.int32]]:
    """How often each image is drawn, int32 (R, N), chunk by chunk; the same for the same units and seed."""
    count = int(units.max(initial=-1)) + 1
    random = np.random.default_rng(how.seed)
    rows = max(1, min(how.resamples, CHUNK_CELLS // max(1, len(units))))
    for start in range(0, how.resamples, rows):
        size = min(rows, how.resamples - start)
        drawn = random.integers(0, max(1, count), (size, count)) + count * np.arange(size)[:, None]
        times = np.bincount(drawn.ravel(), minlength=size * count).reshape(size, count).astype(np.int32)
        # One more column, of zeros, is what unit -1 finds.
        yield np.concatenate([times, np.zeros((size, 1), np.int32)], axis=1)[:, units]


def _join(parts: list[Resampled]) -> Resampled:
    scores = {name: np.concatenate([part.scores[name] for part in parts]) for name in SCORE_NAMES}
    return Resampled(scores, np.concatenate([part.iou_d for part in parts]))


def _interval(values: NDArray[np.float64], how: Bootstrap) -> Interval | None:
    """Percentiles of the resamples on which the score is defined."""
    found = values[~np.isnan(values)]
    if not found.size:
        return None
    tail = (100 - how.confidence) / 2
    low, high = np.percentile(found, [tail, 100 - tail])
    return Interval(float(low), float(high))


def _resampled_mean(runs: Sequence[Scored], draws: NDArray[np.int32]) -> Resampled:
    """The mean over the runs on each resample; undefined where it is for any of them."""
    found = [resample(run, draws) for run in runs]
    scores = {name: np.mean([one.scores[name] for one in found], axis=0) for name in SCORE_NAMES}
    return Resampled(scores, np.mean([one.iou_d for one in found], axis=0))


def _scores(runs: Sequence[CountTable], binary: bool) -> list[dict[str, float | None]]:
    return [score(run, binary=binary) for run in runs]


def _iou_d(runs: Sequence[CountTable], binary: bool) -> list[dict[str, float | None]]:
    return [{str(row["class"]): _number(row["IoU_D"]) for row in per_class(run, binary=binary)} for run in runs]


def _gains(before: list[dict[str, float | None]], after: list[dict[str, float | None]]) -> dict[str, float | None]:
    """Mean over the runs after minus mean over the runs before, by name; None where any of them is undefined."""

    def mean(runs: list[dict[str, float | None]], name: str) -> float:
        return statistics.fmean(np.nan if (value := run[name]) is None else value for run in runs)

    found = {name: mean(after, name) - mean(before, name) for name in before[0]}
    return {name: None if np.isnan(value) else value for name, value in found.items()}


def _difference(value: float | None, values: NDArray[np.float64], how: Bootstrap) -> Difference | None:
    found = _interval(values, how)
    return None if value is None or found is None else Difference(value, *found)


def _number(cell: str | int | float | None) -> float | None:
    return float(cell) if cell is not None else None


def _aligned(first: CountTable, second: CountTable) -> CountTable:
    """The second table with its images in the first one's order."""
    if first.class_names != second.class_names:
        raise InputError(f"cannot compare counts of classes {', '.join(first.class_names)} and {', '.join(second.class_names)}")
    if odd := sorted(set(first.names) ^ set(second.names)):
        raise InputError(f"cannot compare runs that were not scored on the same images: only one of them has '{odd[0]}'")
    aligned = second.rows(first.names)
    if differing := np.flatnonzero(first.valid_pixels != aligned.valid_pixels).tolist():
        raise InputError(
            f"cannot compare runs that were not scored against the same labels: image '{first.names[differing[0]]}' has "
            f"{first.valid_pixels[differing[0]]} valid pixels in one and {aligned.valid_pixels[differing[0]]} in the other"
        )
    return aligned


def _classes(table: CountTable, binary: bool) -> tuple[str, ...]:
    return table.class_names[scored_classes(table, binary)]


def _method(table: CountTable, units: NDArray[np.int64], how: Bootstrap) -> str:
    images, count = int((units >= 0).sum()), int(units.max(initial=-1)) + 1
    over = f"{images:,} images" if count == images else f"{count:,} groups of {images:,} images"
    return f"{how.confidence:g} % percentile bootstrap over {over}, {how.resamples:,} resamples, seed {how.seed}"
