"""Adds up what is counted of one image after another, and computes every score from the sum.

ImageCounts (one image) -> Tally (adds up) -> EvaluationCounts (many images) -> merge_counts (many processes) -> all_scores
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segctl.ignored import IGNORED
from segctl.metrics.boundary import boundary_counts, boundary_scores
from segctl.metrics.calibration import CalibrationTable, calibration_scores
from segctl.metrics.cases import case_scores, rows_of_groups
from segctl.metrics.cityscapes_scores import Benchmark, category_scores, instance_weighted_scores
from segctl.metrics.counts import counts_of
from segctl.metrics.instances import InstanceTable, instance_rows, instance_scores, join_instances
from segctl.metrics.raters import RaterTable, rater_scores
from segctl.metrics.scores import score
from segctl.metrics.table import CountTable, merge_tables


@dataclass(frozen=True)
class ImageCounts:
    """What was counted of one image. pairs: int64 (C, C + 1), see `counts.pairs`; the others are None unless asked for.

    boundary: int64 (C, 3).  instances: int64 (K, 4).  bins: float64 (1 + C, BINS, 3).  unscored: int64 (C,), pixels of each
    class that were predicted as an unscored class of a scored category (see cityscapes_scores.py).
    """

    name: str
    pairs: NDArray[np.int64]
    boundary: NDArray[np.int64] | None = None
    instances: NDArray[np.int64] | None = None
    bins: NDArray[np.float64] | None = None
    unscored: NDArray[np.int64] | None = None
    raters: NDArray[np.int64] | None = None
    """int64 (9, C, 3), see raters.py."""


@dataclass(frozen=True, eq=False)
class EvaluationCounts:
    """What was counted of many images, all tables in the same order of images.

    table: tp, fp, fn per image and class.  confusion: int64 (C, C) over all images, rows are the truth.
    boundary, instances, calibration, raters: None unless asked for.  unscored: int64 (C,), the sum of ImageCounts.unscored.
    """

    table: CountTable
    confusion: NDArray[np.int64]
    boundary: CountTable | None = None
    instances: InstanceTable | None = None
    calibration: CalibrationTable | None = None
    unscored: NDArray[np.int64] | None = None
    raters: RaterTable | None = None


@dataclass(frozen=True)
class MapCounter:
    """Counts what needs whole maps and not just pairs: boundaries, and instances.

    categories: int64 (256,), the category of each id, for benchmarks that have categories.  ignored: the label of ignored pixels.
    """

    num_classes: int
    boundary: bool = False
    categories: NDArray[np.int64] | None = None
    benchmark: Benchmark | None = None
    ignored: int = IGNORED

    def add(
        self,
        image: ImageCounts,
        prediction: NDArray[np.integer],
        label: NDArray[np.integer],
        instances: NDArray[np.integer] | None = None,
    ) -> ImageCounts:
        """The image's counts and what this counter adds. prediction, label, instances: integers (H, W)."""
        if self.boundary:
            image = replace(image, boundary=boundary_counts(prediction, label, self.num_classes, self.ignored))
        if instances is not None:
            image = replace(image, instances=instance_rows(prediction, label, instances, self.categories, self.ignored))
        if instances is not None and self.benchmark is not None:
            image = replace(image, unscored=self.benchmark.count_unscored(prediction, label, self.num_classes, self.ignored))
        return image


class Tally:
    """Adds up images. Its memory grows with the number of images and not with their pixels.

    groups: image name -> its drive or scene, where the dataset names them.
    """

    def __init__(self, class_names: Sequence[str], groups: Mapping[str, str] | None = None) -> None:
        self.class_names, self.groups = tuple(class_names), groups
        self.names: list[str] = []
        self._confusion = np.zeros((len(self.class_names),) * 2, np.int64)
        self._unscored = np.zeros(len(self.class_names), np.int64)
        self._counts: list[NDArray[np.int64]] = []
        self._boundary: list[NDArray[np.int64]] = []
        self._bins: list[NDArray[np.float64]] = []
        self._instances: list[tuple[str, NDArray[np.int64]]] = []
        self._raters: list[NDArray[np.int64]] = []

    def add(self, image: ImageCounts) -> None:
        self.names.append(image.name)
        self._counts.append(counts_of(image.pairs[None])[0])
        self._confusion += image.pairs[:, :-1]
        if image.boundary is not None:
            self._boundary.append(image.boundary)
        if image.instances is not None:
            self._instances.append((image.name, image.instances))
        if image.bins is not None:
            self._bins.append(image.bins)
        if image.unscored is not None:
            self._unscored += image.unscored
        if image.raters is not None:
            self._raters.append(image.raters)

    def counts(self) -> EvaluationCounts:
        """The counts of all images added until now."""
        names, classes = tuple(self.names), len(self.class_names)
        return EvaluationCounts(
            self._table(np.array(self._counts, np.int64).reshape(len(names), classes, 3)),
            self._confusion.copy(),
            self._table(np.array(self._boundary, np.int64)) if self._boundary else None,
            join_instances(self._instances) if self._instances else None,
            CalibrationTable(names, np.array(self._bins)) if self._bins else None,
            self._unscored.copy() if self._instances else None,
            RaterTable(names, np.array(self._raters)) if self._raters else None,
        )

    def _table(self, counts: NDArray[np.int64]) -> CountTable:
        """counts: int64 (N, C, 3) of the images added so far."""
        groups = None if self.groups is None else tuple(self.groups[name] for name in self.names)
        return CountTable(tuple(self.names), self.class_names, counts, groups)


def merge_counts(parts: Sequence[EvaluationCounts], order: Sequence[str] | None = None) -> EvaluationCounts:
    """The counts of several processes as one: images in the given order, or sorted by name.

    The result does not depend on which process counted which image. Raises ArgumentError as `merge_tables` does.
    """
    table = merge_tables([part.table for part in parts], order)
    found = [part for part in parts if part.table.names]
    bins = [part.calibration for part in found if part.calibration is not None]
    instances = [part.instances for part in found if part.instances is not None]
    boundary = [part.boundary for part in found if part.boundary is not None]
    raters = [part.raters for part in found if part.raters is not None]
    return EvaluationCounts(
        table,
        np.sum([part.confusion for part in parts], axis=0),
        merge_tables(boundary, table.names) if boundary else None,
        _merge_instances(instances, table.names) if instances else None,
        CalibrationTable(table.names, _in_order([(part.names, part.bins) for part in bins], table.names)) if bins else None,
        np.sum([part.unscored for part in found if part.unscored is not None], axis=0) if instances else None,
        RaterTable(table.names, _in_order([(part.names, part.counts) for part in raters], table.names)) if raters else None,
    )


def _merge_instances(parts: Sequence[InstanceTable], names: tuple[str, ...]) -> InstanceTable:
    starts = np.cumsum([0, *(len(part.names) for part in parts)])
    whole = InstanceTable(
        tuple(name for part in parts for name in part.names),
        np.concatenate([part.image + start for part, start in zip(parts, starts, strict=False)]),
        np.concatenate([part.rows for part in parts]),
    )
    return whole.ordered(names)


def _in_order(parts: Sequence[tuple[tuple[str, ...], NDArray[Any]]], names: tuple[str, ...]) -> NDArray[Any]:
    """The rows of several parts, each (its names, an array (N, ...)), as one array in the order of `names`."""
    found = {name: row for part, rows in parts for name, row in zip(part, rows, strict=True)}
    return np.stack([found[name] for name in names])


@dataclass(frozen=True)
class Choice:
    """Which scores to compute beside the usual ones. percents: worst cases, 1 to 100.  segment_px: leave smaller segments out
    of mIoU_K."""

    percents: tuple[int, ...] = ()
    segment_px: int = 0

    def in_words(self) -> dict[str, object]:
        """What scores.json says about a choice that is not the usual one."""
        return {"segment_px": self.segment_px} if self.segment_px else {}


USUAL = Choice()
"""Only the scores that every evaluation has."""


def all_scores(
    counts: EvaluationCounts, *, binary: bool = False, benchmark: Benchmark | None = None, choice: Choice = USUAL
) -> dict[str, float | None]:
    """Every score that the counts give, in percent: those of scores.py, then those of what else was counted.

    benchmark: that of the classes, where they are of one; adds its categories, and iIoU where instances were counted.
    """
    table, confusion = counts.table, counts.confusion
    found = score(table, binary=binary, percents=choice.percents)
    if counts.boundary is not None:
        found |= boundary_scores(counts.boundary, binary=binary)
    found |= case_scores(table, binary=binary)
    groups = rows_of_groups(table.groups)
    if counts.calibration is not None:
        found |= calibration_scores(counts.calibration, binary=binary, groups=groups)
    if counts.raters is not None:
        found |= rater_scores(counts.raters, binary=binary, groups=groups)
    if counts.instances is not None:
        found |= instance_scores(table, counts.instances, percents=choice.percents, segment_px=choice.segment_px)
    if benchmark is not None:
        found |= category_scores(benchmark, table, confusion)
    if benchmark is not None and counts.instances is not None and counts.unscored is not None:
        found |= instance_weighted_scores(benchmark, table, confusion, counts.instances, counts.unscored)
    return found
