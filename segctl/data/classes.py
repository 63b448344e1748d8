"""The class table: the only place that defines which id is which class, its colour, and what is ignored.

`LabelCounts` says how much of each class labels show, and `judge_labels` what is wrong with that: classes without pixels, ignored
pixels, values that the class table does not name. A class without pixels is the commonest sign of masks and a class table that
do not fit. It is certain where a value outside the table takes its place; otherwise it is a warning, because a class may be rare,
or a split small.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from segctl.data.findings import Finding
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
        """uint8 (256, 3): the colour of each train id; black for 255 and for ids that belong to no class."""
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
    remarks: how many shapes have each oddity, where annotations were drawn.
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


MAX_IGNORED = 0.3
"""Warn when at least this fraction of a split's pixels is ignored."""
_SHOWN = 5


@dataclass(frozen=True)
class LabelJudgement:
    """Problems that are certain, and sentences about what is likely one."""

    certain: list[Finding]
    warnings: list[str]


def judge_labels(counts: Mapping[str, LabelCounts], classes: ClassTable, advice: str) -> LabelJudgement:
    """Judge what the labels of each split show.  advice: what to do about labels that do not fit the table."""
    if not counts:
        return LabelJudgement([], [])
    whole = LabelCounts.total(counts.values())
    certain, warnings = [], _split_warnings(counts, classes)
    empty = [name for name, pixels in zip(classes.names, whole.classes, strict=True) if not pixels]
    if whole.unknown:
        words = _values(whole)
        if empty and _takes_their_place(whole, empty, classes):
            problem = f"no label shows {_list(empty)}; the labels hold {words}, which the class table does not name"
            certain.append(Finding("", problem, _advice(whole, empty, advice)))
        elif empty or not _is_id(whole):  # the id 255 usually means ignored, so 255 alone needs no warning
            warnings.append(f"the labels hold {words}, which the class table does not name: these pixels are ignored")
    warnings += [f"{what}: {count}" for what, count in whole.remarks.items()]
    return LabelJudgement(certain, warnings)


def counts_of_splits(splits: Mapping[str, Sequence[str]], labels: Mapping[str, LabelCounts]) -> dict[str, LabelCounts]:
    """What the labels of each split show, from what each label that could be read shows; splits without any are left out."""
    found = {split: [labels[name] for name in names if name in labels] for split, names in splits.items()}
    return {split: LabelCounts.total(counts) for split, counts in found.items() if counts}


def _is_id(counts: LabelCounts) -> bool:
    return "," not in next(iter(counts.unknown))


def _takes_their_place(counts: LabelCounts, empty: Sequence[str], classes: ClassTable) -> bool:
    """Whether it is certain that values outside the table are the classes without pixels.

    255 usually means ignored, so it must be one of only two classes. Blended borders have many colours, so only those colours
    count that make up half of the unknown pixels: they must be no more than the classes they may stand for.
    """
    if _is_id(counts):
        return classes.num_classes == 2 and len(empty) == 1
    total, covered, main = sum(counts.unknown.values()), 0, 0
    for pixels in sorted(counts.unknown.values(), reverse=True):
        if 2 * covered < total:
            covered, main = covered + pixels, main + 1
    return main <= len(empty)


def _values(counts: LabelCounts) -> str:
    """`255 (4.7 % of the pixels)`, the most frequent values first."""
    shown = [f"{value} ({_percent(pixels, counts.pixels)} of the pixels)" for value, pixels in list(counts.unknown.items())[:3]]
    more = len(counts.unknown) - len(shown)
    what = "" if _is_id(counts) else "the colour " if len(shown) == 1 else "the colours "
    return what + ", ".join(shown) + (f" and {more} more" if more else "")


def _advice(counts: LabelCounts, empty: Sequence[str], advice: str) -> str:
    value = next(iter(counts.unknown))
    if len(empty) > 1:
        return advice
    if _is_id(counts):
        return f"give '{empty[0]}' the id {value} in the class table, or list {value} there as ignored"
    return f"give '{empty[0]}' the colour {value} in the class table, or list {value} there as ignored"


def _split_warnings(counts: Mapping[str, LabelCounts], classes: ClassTable) -> list[str]:
    """Sentences about classes without pixels and ignored pixels; splits that lack the same classes share one."""
    warnings = []
    missing: dict[tuple[str, ...], list[str]] = {}
    for split, found in counts.items():
        if not any(found.classes):
            warnings.append(f"every pixel of the labels of split '{split}' is ignored")
            continue
        absent = tuple(name for name, pixels in zip(classes.names, found.classes, strict=True) if not pixels)
        missing.setdefault(absent, []).append(split)
        if found.blank:
            labels = "1 label" if found.blank == 1 else f"{found.blank} labels"
            are = "is" if found.blank == 1 else "are"
            warnings.append(f"{labels} of split '{split}' {are} wholly ignored")
        if found.ignored > MAX_IGNORED * found.pixels:
            warnings.append(f"{_percent(found.ignored, found.pixels)} of the pixels of split '{split}' are ignored")
    for absent, splits in missing.items():
        if absent:
            where = f"split {_list(splits)}" if len(splits) == 1 else f"the splits {_list(splits)}"
            warnings.append(f"no label of {where} shows {_list(absent)}")
    return warnings


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def _percent(part: int, whole: int) -> str:
    share = 100 * part / max(whole, 1)
    return f"{share:.1f} %" if share >= 1 else f"{share:.2g} %"
