"""The scores of the Cityscapes benchmark: IoU of categories, and iIoU, in which every instance weighs like one of average size.

The rules of the official evaluator, in our words:
- classes of one category are not told apart: a car predicted as a truck is right; the void category is not scored;
- iIoU = weighted tp / (weighted tp + fp + weighted fn), where each instance's tp and fn are weighted by the average size of its
  class over its own size, and fp are plain pixels; pixels of a class outside all instances are neither tp nor fn;
- a category has an iIoU only if all its classes have instances; in it, predicting an unscored class of the category is right;
- ignored ground truth counts nowhere; predicting an unscored class on a scored pixel is a miss.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segctl.ignored import IGNORED
from segctl.metrics.counts import FN, FP, TP
from segctl.metrics.instances import CLASS, RIGHT_CATEGORY, RIGHT_CLASS, SIZE, InstanceTable
from segctl.metrics.scores import mean
from segctl.metrics.table import CountTable


@dataclass(frozen=True)
class Benchmark:
    """The facts of a class table that these scores need, by name.

    categories: the scored classes of each category.  average_px: pixels of an average instance, for classes with instances.
    unscored: for a category whose classes all have instances, the ids (outside the classes) that its unscored classes have in
    predictions. At most one category may have such ids.
    """

    categories: Mapping[str, tuple[str, ...]]
    average_px: Mapping[str, float]
    unscored: Mapping[str, tuple[int, ...]]

    def of_ids(self, class_names: Sequence[str]) -> NDArray[np.int64]:
        """int64 (256,): the number of the category of each id; -1 for ids without a category."""
        found = np.full(256, -1, np.int64)
        for number, (category, names) in enumerate(self.categories.items()):
            found[[class_names.index(name) for name in names]] = number
            found[list(self.unscored.get(category, ()))] = number
        return found

    def count_unscored(
        self, prediction: NDArray[np.integer], label: NDArray[np.integer], num_classes: int, ignore_index: int = IGNORED
    ) -> NDArray[np.int64]:
        """int64 (C,): pixels of each class that are predicted as one of the unscored ids. prediction, label: (H, W)."""
        ids = [index for indices in self.unscored.values() for index in indices]
        there = np.isin(prediction, ids) & (label < num_classes) & (label != ignore_index)
        return np.bincount(label[there], minlength=num_classes).astype(np.int64)


def category_scores(benchmark: Benchmark, table: CountTable, confusion: NDArray[np.int64]) -> dict[str, float | None]:
    """IoU of each category and their mean, in percent. confusion: int64 (C, C) over the table's images, rows are the truth."""
    counts = table.counts.sum(0)
    truth = counts[:, TP] + counts[:, FN]
    found = {}
    for category, classes in _members(benchmark, table).items():
        hits = confusion[np.ix_(classes, classes)].sum()
        found[category] = _iou(hits, _strays(confusion, classes), truth[classes].sum() - hits)
    return _percents({"mIoU_category": mean(list(found.values()))} | {f"IoU_category.{name}": iou for name, iou in found.items()})


def instance_weighted_scores(
    benchmark: Benchmark,
    table: CountTable,
    confusion: NDArray[np.int64],
    instances: InstanceTable,
    unscored: NDArray[np.int64],
) -> dict[str, float | None]:
    """iIoU of the classes and categories that have instances, and their means, in percent.

    confusion: int64 (C, C), rows are the truth.  unscored: int64 (C,), the sum of `Benchmark.count_unscored` over all images.
    """
    names, false_positives = table.class_names, table.counts[..., FP].sum(0)
    sizes = np.array([benchmark.average_px.get(name, np.nan) for name in names])
    by_class = {
        name: _instance_weighted_iou(
            instances, [names.index(name)], RIGHT_CLASS, float(false_positives[names.index(name)]), sizes
        )
        for name in benchmark.average_px
    }
    by_category = {}
    for category, classes in _members(benchmark, table).items():
        if not np.isnan(sizes[classes]).any():
            strays = float(_strays(confusion, classes))
            if category in benchmark.unscored:
                # The confusion matrix has no column for unscored ids, so their false positives are added here.
                strays += float(unscored.sum() - unscored[classes].sum())
            by_category[category] = _instance_weighted_iou(instances, classes, RIGHT_CATEGORY, strays, sizes)
    return _percents(
        {"miIoU": mean(list(by_class.values())), "miIoU_category": mean(list(by_category.values()))}
        | {f"iIoU.{name}": iou for name, iou in by_class.items()}
        | {f"iIoU_category.{name}": iou for name, iou in by_category.items()}
    )


def _members(benchmark: Benchmark, table: CountTable) -> dict[str, list[int]]:
    return {category: [table.class_names.index(name) for name in names] for category, names in benchmark.categories.items()}


def _strays(confusion: NDArray[np.int64], classes: list[int]) -> int:
    """Pixels of other classes that were predicted as one of these; confusion int64 (C, C), rows are the truth."""
    return int(confusion[:, classes].sum() - confusion[np.ix_(classes, classes)].sum())


def _instance_weighted_iou(
    instances: InstanceTable, classes: list[int], hits: int, strays: float, sizes: NDArray[np.float64]
) -> float:
    """iIoU of some classes together, a fraction; NaN where they have no pixel.

    hits: the column of `instances.rows`, int64 (K, 4), that counts as right.  strays: false positives in pixels.
    sizes: float64 (C,), the pixels of an average instance of each class.
    """
    rows = instances.rows[np.isin(instances.rows[:, CLASS], classes)]
    weight = sizes[rows[:, CLASS]] / rows[:, SIZE]
    right, missed = (rows[:, hits] * weight).sum(), ((rows[:, SIZE] - rows[:, hits]) * weight).sum()
    return _iou(right, strays, missed)


def _iou(hits: float, strays: float, misses: float) -> float:
    whole = hits + strays + misses
    return float(hits / whole) if whole else float("nan")


def _percents(fractions: dict[str, float]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else 100 * float(value) for name, value in fractions.items()}
