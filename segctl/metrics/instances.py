"""Instances in the ground truth -> how each was segmented, and mIoU_K, the mean over instances and then over classes.

A semantic segmentation has no instances, so a false positive belongs to none of them. mIoU_K (arXiv:2310.19252; its appendix was
not at hand, this is what segctl computes) shares an image's false positives of a class among that class's instances in the image
by their size:
    IoU of instance k of class c in image i = tp_k / (size_k + fp_ic · size_k / sum of the sizes of c's instances in i)
A class's score is the mean over all its instances in the dataset; a class that has no instance anywhere (road, sky) counts each
image's region of it as one, which makes its score IoU_C; mIoU_K is the mean over classes. Where a class has instances, pixels
of it that belong to none (a crowd) are in no instance.

An instance map holds uint16 as Cityscapes does: raw class id · 1000 + number, and below 1000 no instance.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segctl.errors import InputError
from segctl.metrics.counts import FP
from segctl.metrics.scores import mean, pair_ratios
from segctl.metrics.table import CountTable

FIRST_INSTANCE = 1000
CLASS, SIZE, TP, TP_CATEGORY = 0, 1, 2, 3
"""Columns of an instance's row: its class, its pixels, those predicted as its class, those predicted as its category."""


@dataclass(frozen=True, eq=False)
class InstanceTable:
    """The instances of many images. rows: int64 (K, 4), see the columns above.  image: int64 (K,), the index of its name."""

    names: tuple[str, ...]
    image: NDArray[np.int64]
    rows: NDArray[np.int64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` makes the table from."""
        return {"names": np.array(self.names, dtype=np.str_), "image": self.image, "rows": self.rows}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        return cls(tuple(map(str, arrays["names"])), arrays["image"], arrays["rows"])

    def ordered(self, names: tuple[str, ...]) -> "InstanceTable":
        """The same instances under images in another order; within an image they keep theirs."""
        position = {name: index for index, name in enumerate(names)}
        image = np.array([position[name] for name in self.names], np.int64)[self.image]
        order = np.argsort(image, kind="stable")
        return replace(self, names=names, image=image[order], rows=self.rows[order])


def instance_rows(
    prediction: NDArray[np.integer],
    label: NDArray[np.integer],
    instances: NDArray[np.integer],
    categories: NDArray[np.int64] | None = None,
    ignore_index: int = 255,
) -> NDArray[np.int64]:
    """The instances of one image: prediction, label and instance map (H, W), int64 (K, 4).

    An instance's class is its label's; ignored ones are left out. categories: int64 (256,), the category of each id, so that
    TP_CATEGORY can be counted; without it a class is its own category.
    """
    if not prediction.shape == label.shape == instances.shape:
        raise InputError(
            f"got a prediction of shape {prediction.shape}, a label of {label.shape} and an instance map of {instances.shape}, "
            "wanted three of the same shape"
        )
    there = (instances >= FIRST_INSTANCE) & (label != ignore_index)
    guess, truth = prediction[there].astype(np.int64), label[there].astype(np.int64)
    # An instance whose pixels bear several labels counts as several.
    keys, which = np.unique(instances[there].astype(np.int64) * 256 + truth, return_inverse=True)
    same_category = guess == truth if categories is None else categories[guess] == categories[truth]
    columns = [
        keys % 256,
        np.bincount(which, minlength=len(keys)),
        np.bincount(which[guess == truth], minlength=len(keys)),
        np.bincount(which[same_category], minlength=len(keys)),
    ]
    return np.stack(columns, axis=-1).astype(np.int64)


def join(parts: list[tuple[str, NDArray[np.int64]]]) -> InstanceTable:
    """One table of the instances of several images, given as (name, rows)."""
    image = np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts])
    rows = np.concatenate([np.zeros((0, 4), np.int64), *(rows for _, rows in parts)])
    return InstanceTable(tuple(name for name, _ in parts), image.astype(np.int64), rows)


def instance_iou(table: CountTable, instances: InstanceTable) -> NDArray[np.float64]:
    """IoU of each instance as a fraction (K,), false positives shared by size."""
    cell = instances.image * len(table.class_names) + instances.rows[:, CLASS]
    size, hits = instances.rows[:, SIZE], instances.rows[:, TP]
    together = np.bincount(cell, weights=size, minlength=table.counts[..., FP].size)
    shared = table.counts[..., FP].ravel()[cell] * (size / together[cell])
    found: NDArray[np.float64] = hits / (size + shared)
    return found


def instance_scores(table: CountTable, instances: InstanceTable) -> dict[str, float | None]:
    """mIoU_K in percent, and IoU_K by class name as `IoU_K.<class>`; None where a class is in no ground truth.

    table: the counts of the same images in the same order.
    """
    if instances.names != table.names:
        raise InputError("got instances of other images than the counts are of, wanted the same in the same order")
    iou, classes = instance_iou(table, instances), instances.rows[:, CLASS]
    regions = pair_ratios(table.counts, binary=False)["IoU"]
    values = [
        mean(iou[classes == index]) if (classes == index).any() else mean(regions[:, index])
        for index in range(len(table.class_names))
    ]
    scores = {"mIoU_K": mean(values)} | {f"IoU_K.{name}": value for name, value in zip(table.class_names, values, strict=True)}
    return {name: None if np.isnan(value) else 100 * value for name, value in scores.items()}
