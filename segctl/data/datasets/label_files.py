"""Label files of every kind to train ids: index maps through a table of ids, masks through a table of colours."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import cv2
import numpy as np

from segctl.data.classes import IGNORED, ClassTable
from segctl.data.files.pictures import Decoded, Picture
from segctl.errors import InputError

MAX_UNKNOWN = 0.02
"""The share of a mask that may have colours of no class: stray pixels are ignored, a resized or foreign mask is refused."""
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Label:
    """`array` uint8 (H, W) in train ids; `sha256` and `byte_count` are of the file."""

    array: np.ndarray
    sha256: str
    byte_count: int
    unknown_pixels: int = 0


class LabelFile(Protocol):
    """A label of one sample."""

    def size(self) -> tuple[int, int] | None:
        """(H, W) from the header; None where only decoding tells."""
        ...

    def decode(self) -> Label:
        """Raises InputError naming the sample, its file, and what it holds that it should not."""
        ...

    def digest(self) -> str:
        """The `sha256` that `decode` would give."""
        ...


@dataclass(frozen=True)
class IdMap:
    """Raw ids to train ids. `train` has 256 entries, `known` says which raw ids may occur, `advice` what to do about others."""

    train: bytes
    known: bytes
    advice: str

    @classmethod
    def of(cls, classes: ClassTable, advice: str, *, ignored: tuple[int, ...] = ()) -> "IdMap":
        """By the table's raw ids; `ignored` are ids that may occur beside them and become 255."""
        known = classes.known_raw_ids()
        known[list(ignored)] = True
        return cls(classes.raw_to_train().tobytes(), known.tobytes(), advice)


@dataclass(frozen=True)
class IndexLabel:
    """An index map: each value is a raw id."""

    picture: Picture
    ids: IdMap

    def size(self) -> tuple[int, int]:
        return self.picture.size()

    def digest(self) -> str:
        return self.picture.digest()

    def decode(self) -> Label:
        return label_of_ids(self.picture, self.picture.decode(), self.ids)


def label_of_ids(picture: Picture, decoded: Decoded, ids: IdMap) -> Label:
    """An index map, uint8 (H, W), in train ids. Raises InputError for an id that may not occur."""
    check_ids(str(picture), decoded.array, ids)
    label = np.asarray(cv2.LUT(decoded.array, np.frombuffer(ids.train, np.uint8)))
    return Label(label, decoded.sha256, len(decoded.content))


def check_ids(what: str, raw: np.ndarray, ids: IdMap) -> None:
    """Raise InputError for the first id of an index map, uint8 (H, W), that may not occur."""
    if cv2.LUT(raw, np.frombuffer(ids.known, np.uint8)).all():
        return
    counts, known = np.bincount(raw.ravel(), minlength=256), np.frombuffer(ids.known, bool)
    wrong = np.flatnonzero((counts > 0) & ~known)
    raise InputError(
        f"{what} holds the id {wrong[0]} ({counts[wrong[0]]} pixels), wanted {_ranges(np.flatnonzero(known))}"
        + guess_label_ids(set(np.flatnonzero(counts).tolist()), int(known[:IGNORED].sum())),
        ids.advice,
    )


def guess_label_ids(present: set[int], num_ids: int) -> str:
    """A clause for ids that look like Cityscapes' 34 label ids where its 19 train ids are meant, or the reverse; else empty.

    `present` are the ids of a label, `num_ids` is how many there may be.
    """
    most = max(present - {IGNORED}, default=0)
    if num_ids == 19 and 18 < most <= 33:
        return "; these look like Cityscapes labelIds where train ids are meant"
    if num_ids == 34 and IGNORED in present and most <= 18:
        return "; these look like Cityscapes train ids where labelIds are meant"
    return ""


def _ranges(ids: np.ndarray) -> str:
    """`0 to 18 or 255`."""
    runs = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    words = [f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs if run.size]
    return " or ".join(words)


@dataclass(frozen=True)
class ColorMap:
    """Colours to train ids; colours outside the table are ignored, up to MAX_UNKNOWN of a mask."""

    train_ids: tuple[tuple[Color, int], ...]
    advice: str

    @classmethod
    def of(cls, train_ids: Mapping[Color, int], advice: str) -> "ColorMap":
        return cls(tuple(sorted(train_ids.items())), advice)


@dataclass(frozen=True)
class ColorLabel:
    """An RGB mask: each colour stands for a class."""

    picture: Picture
    colors: ColorMap

    def size(self) -> tuple[int, int]:
        return self.picture.size()

    def digest(self) -> str:
        return self.picture.digest()

    def decode(self) -> Label:
        return label_of_colors(self.picture, self.picture.decode(), self.colors)


def label_of_colors(picture: Picture, decoded: Decoded, colors: ColorMap) -> Label:
    """A mask, uint8 (H, W, 3), in train ids. Raises InputError where too much of it has colours of no class."""
    codes = _codes(decoded.array)
    label, known = (table[codes] for table in _tables(colors))
    unknown = int(known.size - np.count_nonzero(known))
    if unknown > MAX_UNKNOWN * known.size:
        values, counts = np.unique(codes[~known], return_counts=True)
        worst = int(values[counts.argmax()])
        color = f"{worst >> 16},{worst >> 8 & 255},{worst & 255}"
        share = 100 * unknown / known.size
        raise InputError(f"{picture} has colours of no class on {share:.1f} % of its pixels, {color} most of all", colors.advice)
    return Label(label, decoded.sha256, len(decoded.content), unknown)


def _codes(mask: np.ndarray) -> np.ndarray:
    """int32 (H, W): one number for each colour of uint8 (H, W, 3)."""
    wide = mask.astype(np.int32)
    return wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]


@lru_cache(maxsize=4)
def _tables(colors: ColorMap) -> tuple[np.ndarray, np.ndarray]:
    """uint8 (2^24,) train id and bool (2^24,) whether known, of each colour: a look-up is the fastest way for large masks."""
    label, known = np.full(2**24, IGNORED, np.uint8), np.zeros(2**24, bool)
    for (red, green, blue), train_id in colors.train_ids:
        label[red << 16 | green << 8 | blue] = train_id
        known[red << 16 | green << 8 | blue] = True
    return label, known
