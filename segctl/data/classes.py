"""The class table: the only place that defines which id is which class, its colour, and what is ignored.

`LabelCounts` says how much of each class labels show.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from segctl.errors import InputError
from segctl.ignored import IGNORED


def bit_color(index: int) -> tuple[int, int, int]:
    """VOC's palette: three bits of the index at a time become a bit of red, of green and of blue, highest first."""
    channels = [sum((index >> (3 * bit + channel) & 1) << (7 - bit) for bit in range(3)) for channel in range(3)]
    return channels[0], channels[1], channels[2]


@dataclass(frozen=True)
class ClassRow:
    """One class: `raw_id` in the source's label files (None if they hold no ids), `train_id` in shards, 255 for ignored."""

    name: str
    raw_id: int | None
    train_id: int
    color: tuple[int, int, int]
    category: str | None = None
    """The group of classes that this one belongs to, if the dataset has groups."""
    has_instances: bool = False
    """Whether the source annotates single instances of this class."""


@dataclass(frozen=True)
class ClassTable:
    """All classes of a dataset. A `binary` dataset is scored on its foreground alone.

    Raises InputError if the train ids are not 0, 1, 2, …
    """

    rows: tuple[ClassRow, ...]
    binary: bool = False

    def __post_init__(self) -> None:
        trained = [row.train_id for row in self._trained()]
        if trained != list(range(len(trained))):
            raise InputError(f"the class table has train ids {trained}, wanted 0 to {len(trained) - 1} without gaps or repeats")

    def _trained(self) -> list[ClassRow]:
        return sorted((row for row in self.rows if row.train_id != IGNORED), key=lambda row: row.train_id)

    @property
    def names(self) -> list[str]:
        """Names of the trained classes, in the order of their train ids."""
        return [row.name for row in self._trained()]

    @property
    def num_classes(self) -> int:
        return len(self._trained())

    def palette(self) -> np.ndarray:
        """uint8 (256, 3): the colour of each train id; black for 255 and for ids that are no class."""
        palette = np.zeros((256, 3), np.uint8)
        for row in self._trained():
            palette[row.train_id] = row.color
        return palette

    def raw_to_train(self) -> np.ndarray:
        """uint8 (256,): the train id of each raw id; 255 for raw ids outside the table."""
        table = np.full(256, IGNORED, np.uint8)
        for row in self.rows:
            if row.raw_id is not None:
                table[row.raw_id] = row.train_id
        return table

    def known_raw_ids(self) -> np.ndarray:
        """bool (256,): whether a raw id is in the table at all, ignored ones included."""
        known = np.zeros(256, bool)
        known[[row.raw_id for row in self.rows if row.raw_id is not None]] = True
        return known

    def to_json(self) -> dict[str, Any]:
        return {"binary": self.binary, "rows": [asdict(row) for row in self.rows]}


MAX_VALUES = 32
"""How many values outside the class table are counted one by one; a label with more has blended colours."""


@dataclass(frozen=True)
class LabelCounts:
    """What one label shows, or several.

    classes: pixels of each train id.  ignored: pixels of 255.  labels: how many labels.  blank: how many show no class at all.
    unknown: pixels of the most frequent values that the class table does not name, in words ("255" or "255,255,255").
    remarks: how many shapes are odd in which way, where annotations were drawn.
    """

    classes: tuple[int, ...]
    ignored: int
    labels: int = 1
    blank: int = 0
    unknown: Mapping[str, int] = field(default_factory=dict)
    remarks: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(
        cls, label: np.ndarray, num_classes: int, unknown: Mapping[str, int], remarks: Mapping[str, int] | None = None
    ) -> "LabelCounts":
        """Count a label uint8 (H, W) of train ids."""
        counts = np.bincount(label.ravel(), minlength=256)
        classes = tuple(counts[:num_classes].tolist())
        return cls(classes, int(counts[IGNORED]), blank=int(not any(classes)), unknown=dict(unknown), remarks=dict(remarks or {}))

    @classmethod
    def total(cls, counts: Iterable["LabelCounts"]) -> "LabelCounts":
        """The sum over at least one label."""
        every = list(counts)
        unknown: Counter[str] = Counter()
        remarks: Counter[str] = Counter()
        for one in every:
            unknown.update(one.unknown)
            remarks.update(one.remarks)
        return cls(
            classes=tuple(map(sum, zip(*(one.classes for one in every), strict=True))),
            ignored=sum(one.ignored for one in every),
            labels=sum(one.labels for one in every),
            blank=sum(one.blank for one in every),
            unknown=dict(unknown.most_common(MAX_VALUES)),
            remarks=dict(sorted(remarks.items())),
        )

    @property
    def pixels(self) -> int:
        return sum(self.classes) + self.ignored
