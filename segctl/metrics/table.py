"""Counts keyed by image name: what an evaluation keeps, merges over processes, saves, and is scored from."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from segctl.errors import InputError
from segctl.metrics.counts import FN, FP, TP


@dataclass(frozen=True, eq=False)
class CountTable:
    """tp, fp and fn of every image and class; nothing in it depends on batches or processes.

    names: N image names, each once.  class_names: C names in train-id order.  counts: int64 (N, C, 3), see counts.py.
    groups: the drive or scene of each image, where the dataset names them; what intervals resample.
    """

    names: tuple[str, ...]
    class_names: tuple[str, ...]
    counts: NDArray[np.int64]
    groups: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.groups is not None and len(self.groups) != len(self.names):
            raise InputError(f"got {len(self.groups)} groups, wanted {len(self.names)}, one for each image")
        wanted = (len(self.names), len(self.class_names), 3)
        if self.counts.shape != wanted or self.counts.dtype != np.int64:
            raise InputError(f"got counts of {self.counts.dtype} {self.counts.shape}, wanted int64 {wanted}")
        if len(set(self.names)) < len(self.names):
            twice = next(name for index, name in enumerate(self.names) if name in self.names[:index])
            raise InputError(f"image '{twice}' was counted twice, wanted every image once")

    @property
    def valid_pixels(self) -> NDArray[np.int64]:
        """Pixels of each image that are not ignored: int64 (N,)."""
        pixels: NDArray[np.int64] = self.counts[..., [TP, FN]].sum((1, 2))
        return pixels

    @property
    def outside_predictions(self) -> int:
        """Valid pixels, over all images, whose prediction is none of the classes."""
        return int(self.counts[..., FN].sum() - self.counts[..., FP].sum())

    @property
    def ignored_images(self) -> int:
        """Images without a valid pixel, which every score leaves out."""
        return int((self.valid_pixels == 0).sum())

    def save(self, path: Path) -> None:
        """Write names, class_names, counts and, where there are any, groups to exactly this path (NumPy's npz, no pickles)."""
        with path.open("wb") as handle:
            np.savez(handle, **self.arrays())  # type: ignore[arg-type]  # NumPy reads the names as its own options' types

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` makes the table from."""
        found: dict[str, NDArray[Any]] = {
            "names": np.array(self.names, dtype=np.str_),
            "class_names": np.array(self.class_names, dtype=np.str_),
            "counts": self.counts,
        }
        return found if self.groups is None else found | {"groups": np.array(self.groups, dtype=np.str_)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Raises KeyError where one is missing."""
        groups = tuple(map(str, arrays["groups"])) if "groups" in arrays else None
        return cls(tuple(map(str, arrays["names"])), tuple(map(str, arrays["class_names"])), arrays["counts"], groups)

    def rows(self, order: Sequence[str]) -> Self:
        """The table of these images, in this order. Raises KeyError for an image that is not in it."""
        position = {name: index for index, name in enumerate(self.names)}
        rows = [position[name] for name in order]
        groups = None if self.groups is None else tuple(self.groups[row] for row in rows)
        return type(self)(tuple(order), self.class_names, self.counts[rows], groups)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote. Raises InputError for anything else."""
        try:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
                return cls.from_arrays(file)
        except (OSError, ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
            raise InputError(
                f"cannot read counts from '{path}': {error}", "give a counts.npz that `segctl eval` wrote"
            ) from error


def merge(tables: Sequence[CountTable], order: Sequence[str] | None = None) -> CountTable:
    """One table of the images of several, such as the shares of several processes.

    Images come in the given order, which must name each of them once, or sorted by name, so the result does not depend on
    who counted what. Raises InputError where classes differ or an image was counted twice.
    """
    if not tables:
        raise InputError("there are no counts to merge")
    class_names = tables[0].class_names
    for table in tables[1:]:
        if table.class_names != class_names:
            raise InputError(f"cannot merge counts of classes {', '.join(class_names)} and {', '.join(table.class_names)}")
    names = tuple(name for table in tables for name in table.names)
    known = bool(names) and all(table.groups is not None or not table.names for table in tables)
    groups = tuple(group for table in tables for group in table.groups or ()) if known else None
    whole = CountTable(names, class_names, np.concatenate([table.counts for table in tables]), groups)
    wanted = sorted(names) if order is None else list(order)
    if sorted(wanted) != sorted(names):
        missing = sorted(set(wanted) - set(names))
        fault = f"image '{missing[0]}' was not counted" if missing else "more images were counted than named"
        raise InputError(f"{fault}: got {len(names)} images, wanted {len(wanted)}")
    return whole.rows(wanted)
