"""Instances in the ground truth -> how well each was segmented, and mIoU_K, the mean over instances and then over classes.

A semantic segmentation has no instances, so a false positive belongs to no instance. mIoU_K (named after arXiv:2310.19252;
what follows is segctl's definition) shares an image's false positives of a class among the class's instances in that image, in
proportion to their size:
    IoU of instance k of class c in image i = tp_k / (size_k + fp_ic · size_k / sum of the sizes of c's instances in i)
The score of a class is the mean over all its instances in the dataset. For a class without any instance (road, sky), the region
in each image counts as one instance, so its score is IoU_C. mIoU_K is the mean over classes. Pixels of a class with instances
that belong to no instance (a crowd) are left out.

An instance map is uint16, coded as in Cityscapes: raw class id · 1000 + number; values below 1000 belong to no instance.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.metrics.counts import FP
from segctl.metrics.scores import mean, pair_ratios
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


def instance_iou(table: CountTable, instances: InstanceTable) -> NDArray[np.float64]:
    """IoU of each instance as a fraction, float64 (K,); false positives are shared by size."""
    # One number for each (image, class), so that one bincount sums the sizes of its instances.
    cell = instances.image * len(table.class_names) + instances.rows[:, CLASS]
    size, hits = instances.rows[:, SIZE], instances.rows[:, RIGHT_CLASS]
    together = np.bincount(cell, weights=size, minlength=table.counts[..., FP].size)
    shared = table.counts[..., FP].ravel()[cell] * (size / together[cell])
    found: NDArray[np.float64] = hits / (size + shared)
    return found


def instance_scores(table: CountTable, instances: InstanceTable) -> dict[str, float | None]:
    """mIoU_K in percent, and `IoU_K.<class>` of each class; None where no ground truth has the class.

    table: the counts of the same images in the same order. Raises ArgumentError for other images.
    """
    if instances.names != table.names:
        raise ArgumentError("the instances and the counts are of different images, wanted the same images in the same order")
    iou, classes = instance_iou(table, instances), instances.rows[:, CLASS]
    regions = pair_ratios(table.counts, binary=False)["IoU"]
    values = [
        mean(iou[classes == index]) if (classes == index).any() else mean(regions[:, index])
        for index in range(len(table.class_names))
    ]
    scores = {"mIoU_K": mean(values)} | {f"IoU_K.{name}": value for name, value in zip(table.class_names, values, strict=True)}
    return {name: None if np.isnan(value) else 100 * value for name, value in scores.items()}
