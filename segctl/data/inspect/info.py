"""Counts of a prepared dataset: images, sizes, and how much of each class there is."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from segctl.data.shards.dataset import PreparedDataset
from segctl.ignored import IGNORED


@dataclass(frozen=True)
class SplitInfo:
    """The counts of one split.

    sizes: images of each size "W×H".  groups: images of each group.  pixels: int64 (C,), pixels of each class.
    images: int64 (C,), images that show each class.  unlabelled: images without a label; their pixels count nowhere.
    """

    split: str
    count: int
    sizes: dict[str, int]
    groups: dict[str, int]
    pixels: np.ndarray
    images: np.ndarray
    ignored_pixels: int
    unlabelled: int = 0

    @property
    def sides(self) -> tuple[int, int]:
        """The shortest and the longest side of all images, in pixels."""
        lengths = [int(length) for size in self.sizes for length in size.split("×")]
        return min(lengths), max(lengths)

    @property
    def shares(self) -> np.ndarray:
        """float64 (C,): percent of the pixels that are not ignored."""
        return np.asarray(100 * self.pixels / max(int(self.pixels.sum()), 1))

    @property
    def ignored_share(self) -> float:
        """Percent of all pixels."""
        return 100 * self.ignored_pixels / max(int(self.pixels.sum()) + self.ignored_pixels, 1)

    def to_json(self, class_names: list[str]) -> dict[str, Any]:
        classes = {
            name: {"pixels": int(pixels), "pixel_share": round(float(share), 4), "images": int(images)}
            for name, pixels, share, images in zip(class_names, self.pixels, self.shares, self.images, strict=True)
        }
        return {
            "images": self.count,
            "unlabelled": self.unlabelled,
            "sizes": self.sizes,
            "groups": self.groups,
            "ignored_pixels": self.ignored_pixels,
            "ignored_share": round(self.ignored_share, 4),
            "classes": classes,
        }


def describe_splits(
    dataset: PreparedDataset, splits: Sequence[str] = (), progress: Callable[[int, int], None] = lambda done, total: None
) -> list[SplitInfo]:
    """Count the given splits, or all. Each label is read once, however many splits list it."""
    listed = {split: dataset.names(split) for split in splits or dataset.splits}
    names = sorted({name for names in listed.values() for name in names})
    counts = np.zeros((len(names), 256), np.int64)
    for row, name in enumerate(names):
        if dataset.has_label(name):
            counts[row] = np.bincount(dataset.label(name).ravel(), minlength=256)
        progress(row + 1, len(names))
    rows = {name: row for row, name in enumerate(names)}
    return [_split_info(dataset, split, counts[[rows[name] for name in names]]) for split, names in listed.items()]


def _split_info(dataset: PreparedDataset, split: str, counts: np.ndarray) -> SplitInfo:
    """counts: int64 (N, 256), the pixels of each train id in each image."""
    names, classes = dataset.splits[split], dataset.classes.num_classes
    sizes = Counter(f"{width}×{height}" for height, width in map(dataset.size, names))
    known = dataset.groups or {}  # unlabelled pictures are of no group
    groups = Counter(known[name] for name in names if name in known)
    return SplitInfo(
        split=split,
        count=len(names),
        sizes=dict(sizes.most_common()),
        groups=dict(sorted(groups.items())),
        pixels=counts[:, :classes].sum(0),
        images=(counts[:, :classes] > 0).sum(0),
        ignored_pixels=int(counts[:, IGNORED].sum()),
        unlabelled=sum(not dataset.has_label(name) for name in names),
    )
