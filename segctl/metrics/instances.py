"""Segments of the ground truth -> how well each was segmented, and mIoU_K, the mean over segments and then over classes.

The segments of an image are those of the panoptic conversion of its dataset: each instance, and for each class what is left
without an instance: the whole region of a class that has none (road, sky), and in Cityscapes a *group* (a crowd of persons).
A semantic segmentation has no instances, so a false positive belongs to no segment. An image's false positives of a class are
shared among the class's segments in that image, in proportion to their size:
    IoU of segment k of class c in image i = tp_k / (size_k + fp_ic * size_k / size_ic)
where size_ic is all ground truth of c in i, groups included. Dice likewise. The score of a class is the mean over its segments
in the dataset, mIoU_K the mean over classes; worst q takes the lowest q percent of each class's segments.
Source: zifuwanggg/JDTLosses, metrics/miouk_metric.py at af6c1f6, the code of the authors of arXiv:2310.19252.

An instance map is uint16. Values of 1000 and above are instances (in Cityscapes raw class id * 1000 + number), values below
are none; the class of an instance is that of its label.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.metrics.counts import FN, FP, TP
from segctl.metrics.scores import QBAR_PERCENTS, WORST_PERCENT, mean, worst
from segctl.metrics.table import CountTable

FIRST_INSTANCE = 1000
CLASS, SIZE, RIGHT_CLASS, RIGHT_CATEGORY = 0, 1, 2, 3
"""Columns of a row: the instance's class, its pixels, those predicted as its class, those predicted as its category."""


@dataclass(frozen=True, eq=False)
class InstanceTable:
    """The instances of many images. rows: int64 (K, 4), see the columns above.  image: int64 (K,), the index of its name."""

    names: tuple[str, ...]
    image: NDArray[np.int64]
    rows: NDArray[np.int64]

    def ordered(self, names: tuple[str, ...]) -> "InstanceTable":
        """The same instances with the images in another order; the order within an image stays."""
        position = {name: index for index, name in enumerate(names)}
        image = np.array([position[name] for name in self.names], np.int64)[self.image]
        order = np.argsort(image, kind="stable")
        return replace(self, names=names, image=image[order], rows=self.rows[order])


def instance_rows(
    prediction: NDArray[np.integer],
    label: NDArray[np.integer],
    instances: NDArray[np.integer],
    categories: NDArray[np.int64] | None = None,
    ignore_index: int = IGNORED,
) -> NDArray[np.int64]:
    """The instances of one image, as rows int64 (K, 4).

    prediction, label, instances: integers (H, W).  categories: int64 (256,), the category of each id, for RIGHT_CATEGORY; without
    it every class is its own category. The class of an instance is that of its label; ignored instances are left out.
    Raises ArgumentError where the shapes differ.
    """
    if not prediction.shape == label.shape == instances.shape:
        raise ArgumentError(
            f"got a prediction of shape {prediction.shape}, a label of {label.shape} and an instance map of {instances.shape}, "
            "wanted three of the same shape"
        )
    there = (instances >= FIRST_INSTANCE) & (label != ignore_index)
    guess, truth = prediction[there].astype(np.int64), label[there].astype(np.int64)
    # An instance whose pixels have several labels counts as several instances.
    keys, which = np.unique(instances[there].astype(np.int64) << 16 | truth, return_inverse=True)
    # Predictions of 16 bits may hold ids beyond the 256 that have a category; the last of these, 255, has none.
    same_category = guess == truth if categories is None else categories[np.minimum(guess, 255)] == categories[truth]
    columns = [
        keys & 0xFFFF,
        np.bincount(which, minlength=len(keys)),
        np.bincount(which[guess == truth], minlength=len(keys)),
        np.bincount(which[same_category], minlength=len(keys)),
    ]
    return np.stack(columns, axis=-1).astype(np.int64)


def join_instances(parts: list[tuple[str, NDArray[np.int64]]]) -> InstanceTable:
    """One table of the instances of several images. parts: name and rows int64 (K, 4) of each image."""
    image = np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts])
    rows = np.concatenate([np.zeros((0, 4), np.int64), *(rows for _, rows in parts)])
    return InstanceTable(tuple(name for name, _ in parts), image.astype(np.int64), rows)


@dataclass(frozen=True, eq=False)
class Segments:
    """The segments of many images: the class int64 (K,) of each, its pixels, those that are right, and its share of the class's
    false positives in its image, float64 (K,)."""

    classes: NDArray[np.int64]
    sizes: NDArray[np.int64]
    hits: NDArray[np.int64]
    strays: NDArray[np.float64]

    def ratios(self) -> dict[str, NDArray[np.float64]]:
        """IoU and Dice of each segment as fractions, float64 (K,)."""
        whole = self.sizes + self.strays
        return {"IoU": self.hits / whole, "Dice": 2 * self.hits / (self.hits + whole)}

    def at_least(self, pixels: int) -> "Segments":
        """The segments of at least this many pixels; their shares of the false positives stay."""
        kept = self.sizes >= pixels
        return Segments(self.classes[kept], self.sizes[kept], self.hits[kept], self.strays[kept])


def segments_of(table: CountTable, instances: InstanceTable) -> Segments:
    """The instances, and per image and class the ground truth that belongs to none, as one more segment.

    table: the counts of the same images in the same order. Raises ArgumentError for other images.
    """
    if instances.names != table.names:
        raise ArgumentError("the instances and the counts are of different images, wanted the same images in the same order")
    truth, hits = table.counts[..., [TP, FN]].sum(-1).ravel(), table.counts[..., TP].ravel()
    # One number for each (image, class), so that one bincount sums over its instances.
    cell = instances.image * len(table.class_names) + instances.rows[:, CLASS]
    left, left_hits = truth.copy(), hits.copy()
    np.subtract.at(left, cell, instances.rows[:, SIZE])
    np.subtract.at(left_hits, cell, instances.rows[:, RIGHT_CLASS])
    if (left < 0).any() or (left_hits < 0).any() or (left_hits > left).any():
        raise ArgumentError("the instances have other pixels than the counts, wanted both of one evaluation")
    rest = np.flatnonzero(left)
    cells = np.concatenate([cell, rest])
    sizes = np.concatenate([instances.rows[:, SIZE], left[rest]])
    return Segments(
        cells % len(table.class_names),
        sizes,
        np.concatenate([instances.rows[:, RIGHT_CLASS], left_hits[rest]]),
        table.counts[..., FP].ravel()[cells] * (sizes / truth[cells]),
    )


def instance_scores(
    table: CountTable, instances: InstanceTable, *, percents: Iterable[int] = (), segment_px: int = 0
) -> dict[str, float | None]:
    """mIoU_K and mDice_K, their worst case `_q5` and `_qbar`, and `IoU_K.<class>` of each class, in percent.

    None where no ground truth has the class. percents: more worst cases, 1 to 100.  segment_px: leave smaller segments out.
    Raises ArgumentError as `segments_of` does.
    """
    found = segments_of(table, instances).at_least(segment_px)
    ratios, classes = found.ratios(), range(len(table.class_names))
    scores: dict[str, float] = {}
    for kind, values in ratios.items():
        columns = [values[found.classes == index] for index in classes]
        scores[f"m{kind}_K"] = mean([mean(column) for column in columns])
        for q in dict.fromkeys((WORST_PERCENT, *percents)):
            scores[f"m{kind}_K_q{q}"] = mean([worst(column, q) for column in columns])
        scores[f"m{kind}_K_qbar"] = mean([mean([worst(column, q) for column in columns]) for q in QBAR_PERCENTS])
    scores |= {f"IoU_K.{name}": mean(ratios["IoU"][found.classes == i]) for i, name in enumerate(table.class_names)}
    return {name: None if np.isnan(value) else 100 * value for name, value in scores.items()}
