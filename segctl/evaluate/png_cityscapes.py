"""The Cityscapes benchmark: whether classes are its 19, and its label ids. Needs no torch."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segctl.data.datasets.cityscapes_classes import AVERAGE_INSTANCE_PX, CLASSES
from segctl.ignored import IGNORED
from segctl.metrics.cityscapes_scores import Benchmark

STAND_IN = 128
"""Added to the label id of an unscored class, so that predictions of it differ from those of all scored classes (png_ids.py)."""


def benchmark_of(class_names: Sequence[str]) -> Benchmark | None:
    """The facts of the benchmark if these are its 19 classes, in any order; else None."""
    if sorted(class_names) != sorted(CLASSES.names):
        return None
    scored = [row for row in CLASSES.rows if row.train_id != IGNORED]
    categories = {row.category: () for row in scored if row.category}
    members = {category: tuple(row.name for row in scored if row.category == category) for category in categories}
    unscored = {}
    for category in members:
        rows = [row for row in CLASSES.rows if row.category == category]
        ids = tuple(row.raw_id + STAND_IN for row in rows if row.train_id == IGNORED and row.raw_id is not None)
        if ids and all(row.has_instances for row in rows):
            unscored[category] = ids
    return Benchmark(members, {row.name: AVERAGE_INSTANCE_PX[row.name] for row in scored if row.has_instances}, unscored)


def train_to_label_ids() -> NDArray[np.uint8]:
    """uint8 (256,): the label id of each train id, for a submission to the benchmark; 0 (unlabeled) for all other ids."""
    table = np.zeros(256, np.uint8)
    for row in CLASSES.rows:
        if row.train_id != IGNORED and row.raw_id is not None:
            table[row.train_id] = row.raw_id
    return table
