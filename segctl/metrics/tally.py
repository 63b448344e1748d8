"""Everything that an evaluation counts, image by image: joined over processes, kept while it goes on, and scored at its end."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segctl.errors import InputError
from segctl.metrics.boundary import boundary_counts, boundary_scores
from segctl.metrics.calibration import CalibrationTable, calibration_scores
from segctl.metrics.cityscapes import Benchmark, category_scores, instance_weighted_scores
from segctl.metrics.counts import counts_of
from segctl.metrics.instances import InstanceTable, instance_rows, instance_scores, join
from segctl.metrics.scores import score
from segctl.metrics.table import CountTable, merge

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class ImageCounts:
    """What was counted in one image. pairs: int64 (C, C + 1), see `counts.pairs`; the rest where it was asked for.

    boundary: int64 (C, 3).  instances: int64 (K, 4).  bins: float64 (1 + C, BINS, 3).  unscored: int64 (C,), pixels of each
    class that were predicted as an unscored class of a scored category (see cityscapes.py).
    """

    name: str
    pairs: NDArray[np.int64]
    boundary: NDArray[np.int64] | None = None
    instances: NDArray[np.int64] | None = None
    bins: NDArray[np.float64] | None = None
    unscored: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class Counted:
    """Images, counted: tp/fp/fn per image and class, one confusion matrix int64 (C, C) over them all (rows are truth), and
    what else was asked for, of the same images in the same order."""

    table: CountTable
    confusion: NDArray[np.int64]
    boundary: CountTable | None = None
    instances: InstanceTable | None = None
    calibration: CalibrationTable | None = None
    unscored: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class MapCounts:
    """What is counted from whole maps beside the pairs: boundaries, and instances by the benchmark's categories if it has any."""

    num_classes: int
    boundary: bool = False
    categories: NDArray[np.int64] | None = None
    benchmark: Benchmark | None = None

    def add(
        self,
        image: ImageCounts,
        prediction: NDArray[np.integer],
        label: NDArray[np.integer],
        instances: NDArray[np.integer] | None = None,
    ) -> ImageCounts:
        """The image with more counted. prediction, label, instances: (H, W)."""
        if self.boundary:
            image = replace(image, boundary=boundary_counts(prediction, label, self.num_classes))
        if instances is not None:
            image = replace(image, instances=instance_rows(prediction, label, instances, self.categories))
        if instances is not None and self.benchmark is not None:
            image = replace(image, unscored=self.benchmark.count_unscored(prediction, label, self.num_classes))
        return image


class Tally:
    """Adds up images; what it keeps of one does not depend on its size."""

    def __init__(self, class_names: Sequence[str], groups: Mapping[str, str] | None = None) -> None:
        self.class_names, self.groups = tuple(class_names), groups
        self.names: list[str] = []
        self._confusion = np.zeros((len(self.class_names),) * 2, np.int64)
        self._unscored = np.zeros(len(self.class_names), np.int64)
        self._counts: list[NDArray[np.int64]] = []
        self._boundary: list[NDArray[np.int64]] = []
        self._bins: list[NDArray[np.float64]] = []
        self._instances: list[tuple[str, NDArray[np.int64]]] = []

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

    def counted(self) -> Counted:
        """What has been added so far."""
        names, classes = tuple(self.names), len(self.class_names)
        return Counted(
            self._table(np.array(self._counts, np.int64).reshape(len(names), classes, 3)),
            self._confusion.copy(),
            self._table(np.array(self._boundary, np.int64)) if self._boundary else None,
            join(self._instances) if self._instances else None,
            CalibrationTable(names, np.array(self._bins)) if self._bins else None,
            self._unscored.copy() if self._instances else None,
        )

    def _table(self, counts: NDArray[np.int64]) -> CountTable:
        groups = None if self.groups is None else tuple(self.groups[name] for name in self.names)
        return CountTable(tuple(self.names), self.class_names, counts, groups)


def merge_counted(parts: Sequence[Counted], order: Sequence[str] | None = None) -> Counted:
    """One whole of several shares, images in the given order or sorted by name: the same whoever counted what.

    Raises InputError as `table.merge` does.
    """
    table = merge([part.table for part in parts], order)
    found = [part for part in parts if part.table.names]
    bins = [part.calibration for part in found if part.calibration is not None]
    instances = [part.instances for part in found if part.instances is not None]
    boundary = [part.boundary for part in found if part.boundary is not None]
    return Counted(
        table,
        np.sum([part.confusion for part in parts], axis=0),
        merge(boundary, table.names) if boundary else None,
        _join_instances(instances, table.names) if instances else None,
        _join_bins(bins, table.names) if bins else None,
        np.sum([part.unscored for part in found if part.unscored is not None], axis=0) if instances else None,
    )


def _join_instances(parts: Sequence[InstanceTable], names: tuple[str, ...]) -> InstanceTable:
    starts = np.cumsum([0, *(len(part.names) for part in parts)])
    whole = InstanceTable(
        tuple(name for part in parts for name in part.names),
        np.concatenate([part.image + start for part, start in zip(parts, starts, strict=False)]),
        np.concatenate([part.rows for part in parts]),
    )
    return whole.ordered(names)


def _join_bins(parts: Sequence[CalibrationTable], names: tuple[str, ...]) -> CalibrationTable:
    found = {name: bins for part in parts for name, bins in zip(part.names, part.bins, strict=True)}
    return CalibrationTable(names, np.stack([found[name] for name in names]))


def all_scores(counted: Counted, *, binary: bool = False, benchmark: Benchmark | None = None) -> dict[str, float | None]:
    """Every score that the counts give, in percent: those of scores.py, then those of what else was counted.

    benchmark: that of the classes, where they are of one; adds its categories, and iIoU where instances were counted.
    """
    table, confusion = counted.table, counted.confusion
    found = score(table, binary=binary)
    if counted.boundary is not None:
        found |= boundary_scores(counted.boundary, binary=binary)
    if counted.calibration is not None:
        found |= calibration_scores(counted.calibration, binary=binary)
    if counted.instances is not None:
        found |= instance_scores(table, counted.instances)
    if benchmark is not None:
        found |= category_scores(benchmark, table, confusion)
    if benchmark is not None and counted.instances is not None and counted.unscored is not None:
        found |= instance_weighted_scores(benchmark, table, confusion, counted.instances, counted.unscored)
    return found


def write_part(path: Path, counted: Counted, key: str) -> None:
    """Keep what has been counted so far, under a key that says of what."""
    arrays: Arrays = {"key": np.array(key), "confusion": counted.confusion, **_prefixed("table", counted.table.arrays())}
    if counted.boundary is not None:
        arrays |= _prefixed("boundary", counted.boundary.arrays())
    if counted.instances is not None and counted.unscored is not None:
        arrays |= _prefixed("instances", counted.instances.arrays()) | {"unscored": counted.unscored}
    if counted.calibration is not None:
        arrays |= _prefixed("calibration", counted.calibration.arrays())
    with path.open("wb") as handle:
        np.savez(handle, **arrays)  # type: ignore[arg-type]  # NumPy reads the names as its own options' types


def read_part(path: Path, key: str) -> Counted | None:
    """What `write_part` kept under this key; None where the file is missing, damaged or of another key."""
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            arrays = dict(file)
        return _from_arrays(arrays) if str(arrays["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile, InputError):
        return None


def _from_arrays(arrays: Arrays) -> Counted:
    boundary, instances, bins = (_named(arrays, prefix) for prefix in ("boundary", "instances", "calibration"))
    return Counted(
        CountTable.from_arrays(_named(arrays, "table")),
        arrays["confusion"],
        CountTable.from_arrays(boundary) if boundary else None,
        InstanceTable.from_arrays(instances) if instances else None,
        CalibrationTable.from_arrays(bins) if bins else None,
        arrays.get("unscored"),
    )


def _prefixed(prefix: str, arrays: Arrays) -> Arrays:
    return {f"{prefix}.{name}": array for name, array in arrays.items()}


def _named(arrays: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(f"{prefix}."): array for name, array in arrays.items() if name.startswith(f"{prefix}.")}
