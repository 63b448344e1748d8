"""Counts keyed by image name: what an evaluation keeps, merges over processes, saves, and is scored from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from segctl.errors import ArgumentError
from segctl.metrics.counts import FN, FP, TP


@dataclass(frozen=True, eq=False)
class CountTable:
    """tp, fp and fn of every image and class; nothing in it depends on batches or processes.

    names: N image names, each once.  class_names: C names in train-id order.  counts: int64 (N, C, 3), see counts.py.
    groups: the drive or scene of each image, where the dataset names them; intervals resample whole groups.
    Raises ArgumentError where the lengths, the shape or the dtype do not fit, or the name of an image or a class repeats.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    counts: NDArray[np.int64]
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.groups is not None and len(self.groups) != len(self.names):
            raise ArgumentError(f"got {len(self.groups)} groups, wanted {len(self.names)}, one for each image")
        wanted = (len(self.names), len(self.class_names), 3)
        if self.counts.shape != wanted or self.counts.dtype != np.int64:
            raise ArgumentError(f"got counts of {self.counts.dtype} {self.counts.shape}, wanted int64 {wanted}")
        if len(set(self.class_names)) < len(self.class_names):
            twice = next(name for index, name in enumerate(self.class_names) if name in self.class_names[:index])
            raise ArgumentError(f"class '{twice}' is named twice, wanted every class once")
        if len(set(self.names)) < len(self.names):
            twice = next(name for index, name in enumerate(self.names) if name in self.names[:index])
            raise ArgumentError(f"image '{twice}' was counted twice, wanted every image once")

    @property
    def valid_pixels(self) -> NDArray[np.int64]:
        """Pixels of each image that are not ignored: int64 (N,)."""
        # Each valid pixel is a tp or an fn of exactly one class: the class of its label.
        pixels: NDArray[np.int64] = self.counts[..., [TP, FN]].sum((1, 2))
        return pixels

    @property
    def outside_predictions(self) -> int:
        """Valid pixels of all images that are predicted as none of the classes."""
        # Every wrong prediction is an fn of the label's class, and an fp only if the predicted class exists.
        return int(self.counts[..., FN].sum() - self.counts[..., FP].sum())

    @property
    def ignored_images(self) -> int:
        """Images without a valid pixel, which every score leaves out."""
        return int((self.valid_pixels == 0).sum())

    def rows(self, order: Sequence[str]) -> Self:
        """The table of these images, in this order. Raises KeyError for an image that is not in the table."""
        position = {name: index for index, name in enumerate(self.names)}
        rows = [position[name] for name in order]
        groups = None if self.groups is None else tuple(self.groups[row] for row in rows)
        return type(self)(tuple(order), self.class_names, self.counts[rows], groups)


def merge_tables(tables: Sequence[CountTable], order: Sequence[str] | None = None) -> CountTable:
    """One table of the images of several tables, such as those of several processes.

    The images follow `order`, which must name each of them once; without it they are sorted by name. So the result does not
    depend on which process counted which image. Raises ArgumentError where classes differ or an image was counted twice.
    """
    if not tables:
        raise ArgumentError("there are no counts to merge")
    class_names = tables[0].class_names
    for table in tables[1:]:
        if table.class_names != class_names:
            raise ArgumentError(f"cannot merge counts of classes {', '.join(class_names)} and {', '.join(table.class_names)}")
    names = tuple(name for table in tables for name in table.names)
    # A process may have had no image and so no groups; that says nothing about the groups of the others.
    grouped = bool(names) and all(table.groups is not None or not table.names for table in tables)
    groups = tuple(group for table in tables for group in table.groups or ()) if grouped else None
    whole = CountTable(names, class_names, np.concatenate([table.counts for table in tables]), groups)
    wanted = sorted(names) if order is None else list(order)
    if sorted(wanted) != sorted(names):
        missing = sorted(set(wanted) - set(names))
        fault = f"image '{missing[0]}' was not counted" if missing else "more images were counted than named"
        raise ArgumentError(f"{fault}: got {len(names)} images, wanted {len(wanted)}")
    return whole.rows(wanted)
