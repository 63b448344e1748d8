"""The Cityscapes benchmark's own scores: IoU of categories, and iIoU, which weighs every instance like one of average size.

As the official evaluator computes them (its rules, in our words):
- a category's classes are not told apart: a car predicted as a truck is right; the void category is not scored;
- iIoU = weighted tp / (weighted tp + fp + weighted fn), where each instance's tp and fn are weighted by the average size of its
  class over its own size, and fp are plain pixels; pixels of a class outside all instances are neither tp nor fn;
- categories all of whose classes have instances have an iIoU too; there an unscored class of the category is a right answer;
- rows of ignored ground truth count nowhere, and predicting an unscored class on a scored pixel is a miss.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from segctl.metrics.counts import FN, FP
from segctl.metrics.counts import TP as HITS
from segctl.metrics.instances import CLASS, SIZE, TP, TP_CATEGORY, InstanceTable
from segctl.metrics.scores import mean
from segctl.metrics.table import CountTable

CATEGORIES: dict[str, tuple[str, ...]] = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}

AVERAGE_SIZE = {
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}
"""Pixels of an average instance in the training set; the classes that have instances."""

UNSCORED_VEHICLES = {"caravan": 200, "trailer": 201}
"""Vehicles that are not scored, and the ids that stand for them in predictions: outside the classes, but of the category."""


def is_cityscapes(class_names: Sequence[str]) -> bool:
    """Whether these are the benchmark's 19 classes, in any order."""
    return sorted(class_names) == sorted(name for names in CATEGORIES.values() for name in names)


def category_of_ids(class_names: Sequence[str]) -> NDArray[np.int64]:
    """int64 (256,): the category of each id, a number; -1 for ids of none."""
    found = np.full(256, -1, np.int64)
    for number, names in enumerate(CATEGORIES.values()):
        found[[class_names.index(name) for name in names]] = number
    found[list(UNSCORED_VEHICLES.values())] = list(CATEGORIES).index("vehicle")
    return found


def category_scores(table: CountTable, confusion: NDArray[np.int64]) -> dict[str, float | None]:
    """IoU of each category and their mean, in percent. confusion: int64 (C, C), rows are truth, of the table's images."""
    counts = table.counts.sum(0)
    truth = counts[:, HITS] + counts[:, FN]
    found = {}
    for category, classes in _members(table).items():
        hits = confusion[np.ix_(classes, classes)].sum()
        found[category] = _iou(hits, _strays(confusion, classes), truth[classes].sum() - hits)
    return _percents({"mIoU_category": mean(list(found.values()))} | {f"IoU_category.{name}": iou for name, iou in found.items()})


def instance_weighted_scores(
    table: CountTable, confusion: NDArray[np.int64], instances: InstanceTable, unscored: NDArray[np.int64]
) -> dict[str, float | None]:
    """iIoU of the classes and categories that have instances, and their means, in percent.

    unscored: int64 (C,), pixels of each class that were predicted as one of UNSCORED_VEHICLES.
    """
    names = table.class_names
    members = {name: [names.index(name)] for name in AVERAGE_SIZE}
    by_class = {
        name: _weighted(instances, index, TP, float(table.counts[:, index[0], FP].sum()), names)
        for name, index in members.items()
    }
    by_category = {}
    for category, classes in _members(table).items():
        if all(names[index] in AVERAGE_SIZE for index in classes):
            strays = float(_strays(confusion, classes))
            if category == "vehicle":
                strays += float(unscored.sum() - unscored[classes].sum())
            by_category[category] = _weighted(instances, classes, TP_CATEGORY, strays, names)
    return _percents(
        {"miIoU": mean(list(by_class.values())), "miIoU_category": mean(list(by_category.values()))}
        | {f"iIoU.{name}": iou for name, iou in by_class.items()}
        | {f"iIoU_category.{name}": iou for name, iou in by_category.items()}
    )


def _members(table: CountTable) -> dict[str, list[int]]:
    return {category: [table.class_names.index(name) for name in names] for category, names in CATEGORIES.items()}


def _strays(confusion: NDArray[np.int64], classes: list[int]) -> int:
    """Pixels of other classes that were predicted as one of these."""
    return int(confusion[:, classes].sum() - confusion[np.ix_(classes, classes)].sum())


def _weighted(instances: InstanceTable, classes: list[int], hits: int, strays: float, names: Sequence[str]) -> float:
    rows = instances.rows[np.isin(instances.rows[:, CLASS], classes)]
    sizes = np.array([AVERAGE_SIZE.get(name, np.nan) for name in names])
    weight = sizes[rows[:, CLASS]] / rows[:, SIZE]
    right, missed = (rows[:, hits] * weight).sum(), ((rows[:, SIZE] - rows[:, hits]) * weight).sum()
    return _iou(right, strays, missed)


def _iou(hits: float, strays: float, misses: float) -> float:
    whole = hits + strays + misses
    return float(hits / whole) if whole else float("nan")


def _percents(fractions: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else 100 * float(value) for name, value in fractions.items()}
