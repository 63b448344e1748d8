"""How sure a score is: intervals by bootstrap over images, and the paired difference of two runs, from counts alone.

Method: percentile bootstrap (Efron). A resample draws as many units as there are, with replacement; a unit is an image, or, where
the dataset names groups (drives, scenes), a whole group, because frames of one drive are not independent. Every score of
scores.py is computed on every resample, so its interval covers what that score averages over. Two runs are compared on the same
resamples of the same images. The interval says what other images of the same kind would do, not what another seed would.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from segctl.errors import InputError
from segctl.metrics.resampled import Resampled, prepare, resample
from segctl.metrics.scores import SCORE_NAMES, per_class, score, scored_classes
from segctl.metrics.table import CountTable

FEW_UNITS = 10
CHUNK_CELLS = 2**18
"""Resamples times images that are worked on at once: a few MB, so that memory stays small and caches warm."""


@dataclass(frozen=True)
class Bootstrap:
    """How many resamples, from which seed, and how much of them an interval covers, in percent."""

    resamples: int = 10_000
    seed: int = 0
    confidence: float = 95.0


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
    how = how or Bootstrap()
    units, scored = _units(table), prepare(table, binary)
    found = _join([resample(scored, draws) for draws in _draws(units, how)])
    return Intervals(
        {name: _interval(found.scores[name], how) for name in SCORE_NAMES},
        {name: _interval(column, how) for name, column in zip(_classes(table, binary), found.iou_d.T, strict=True)},
        _method(table, units, how),
        warning(table),
    )


def differences(first: CountTable, second: CountTable, *, binary: bool = False, how: Bootstrap | None = None) -> Differences:
    """`second` minus `first`, paired: both are scored on the same resamples of the same images.

    Raises InputError where the two were not scored on the same images against the same ground truth.
    """
    how = how or Bootstrap()
    second = _aligned(first, second)
    units = _units(first)
    sides = prepare(first, binary), prepare(second, binary)
    parts = [[resample(side, draws) for side in sides] for draws in _draws(units, how)]
    one, other = (_join([pair[index] for pair in parts]) for index in (0, 1))
    before, after = score(first, binary=binary), score(second, binary=binary)
    rows = zip(per_class(first, binary=binary), per_class(second, binary=binary), strict=True)
    classes = {str(a["class"]): (_number(a["IoU_D"]), _number(b["IoU_D"])) for a, b in rows}
    return Differences(
        {name: _difference(before[name], after[name], other.scores[name] - one.scores[name], how) for name in SCORE_NAMES},
        {
            name: _difference(*classes[name], column, how)
            for name, column in zip(classes, (other.iou_d - one.iou_d).T, strict=True)
        },
        _method(first, units, how),
        warning(first),
    )


def warning(table: CountTable) -> str | None:
    """Why the images say less than their number promises; None where nothing is known against them."""
    kept = [index for index, pixels in enumerate(table.valid_pixels) if pixels]
    names = [table.names[index] for index in kept]
    groups = None if table.groups is None else sorted({table.groups[index] for index in kept})
    if not names:
        return None
    narrow = "frames of one drive resemble each other, so these intervals are too narrow"
    if groups is not None and len(groups) == 1 and len(names) > 1:
        return f"all {len(names)} images are of one group, '{groups[0]}': {narrow}"
    if groups is None and _is_one_drive(names):
        return f"the {len(names)} images look like every few frames of one video, and no groups are known: {narrow}"
    units, noun = (len(names), "images") if groups is None else (len(groups), "groups")
    return f"there are only {units} {noun}: these intervals are rough" if units < FEW_UNITS else None


def _is_one_drive(names: list[str]) -> bool:
    """Whether names are one prefix and evenly spaced numbers with gaps, as frames taken out of a video are."""
    found = [re.fullmatch(r"(.*?)(\d+)(\D*)", name) for name in names]
    if len(found) < 3 or not all(found) or len({(match[1], match[3]) for match in found if match}) > 1:
        return False
    steps = np.diff(sorted(int(match[2]) for match in found if match))
    return bool((steps == steps[0]).all() and steps[0] > 1)


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


def _difference(before: float | None, after: float | None, values: NDArray[np.float64], how: Bootstrap) -> Difference | None:
    found = _interval(values, how)
    return None if before is None or after is None or found is None else Difference(after - before, *found)


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
