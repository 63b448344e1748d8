"""What a teacher answers to the fixed views of a split, in files: made once, and read by every run that would ask the same.

    <folder>/<part>-<plain or mirrored>-00003.rows      the answers to some samples in a row, each followed by its checksum

A file that exists is whole. Each part of an answer has files of its own, so that runs which read more of it add what they lack.
Answers are kept as they came, to the bit and in their order in memory, so that sums over them come out the same; every one is
checked when it is read, and the checksum covers whose it is, so that none can stand in another's place.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import xxhash
from torch import Tensor

from segctl.errors import SegctlError
from segctl.files import write_whole

KEPT_TOGETHER = 16
"""About how many samples share a file, and are in memory at once while it is made."""
_CHECKSUM = struct.Struct("<Q")


@dataclass(frozen=True)
class Part:
    """One of the maps of an answer, by the name that the engine gives it: for one image (D, h, w)."""

    name: str
    shape: tuple[int, int, int]
    dtype: torch.dtype
    channels_last: bool

    @classmethod
    def of(cls, name: str, maps: Tensor) -> "Part":
        """As these maps (B, D, h, w) are."""
        last = not maps.is_contiguous() and maps.is_contiguous(memory_format=torch.channels_last)
        return cls(name, (maps.shape[1], maps.shape[2], maps.shape[3]), maps.dtype, last)

    @property
    def row_bytes(self) -> int:
        """Of one image's map with its checksum."""
        return math.prod(self.shape) * self.dtype.itemsize + _CHECKSUM.size

    def empty(self, images: int) -> Tensor:
        """Room for the maps (B, D, h, w) of some images, in the order of memory that they came in."""
        depth, height, width = self.shape
        if self.channels_last:
            return torch.empty((images, height, width, depth), dtype=self.dtype).permute(0, 3, 1, 2)
        return torch.empty((images, depth, height, width), dtype=self.dtype)

    def bytes_of(self, maps: Tensor) -> np.ndarray:
        """The maps' own memory as uint8 (B, bytes of one); of maps in another order, a copy in this one."""
        laid = maps.permute(0, 2, 3, 1) if self.channels_last else maps
        return np.asarray(laid.contiguous().flatten().view(torch.uint8).view(len(maps), -1).numpy())


@dataclass(frozen=True)
class Piece:
    """The samples of one file of each part, by their places in the split, and whether they are mirrored."""

    number: int
    samples: range
    mirrored: bool


@dataclass(frozen=True)
class Answers:
    """The answers to all samples of a split, in the order of its names; the files may be there or not.

    `folder` is the files' own and named by all that the answers depend on.  `sides` are those of `fixed_views.sides`.
    `at_once` is how many images the teacher is given at a time: on some devices the last digits depend on it.
    """

    folder: Path
    parts: tuple[Part, ...]
    names: tuple[str, ...]
    sides: tuple[bool, ...]
    at_once: int

    @property
    def _each(self) -> int:
        return self.at_once * max(1, KEPT_TOGETHER // self.at_once)

    def pieces(self) -> list[Piece]:
        """All files' samples."""
        count = len(self.names)
        starts = range(0, count, self._each)
        return [
            Piece(number, range(start, min(start + self._each, count)), mirrored)
            for mirrored in self.sides
            for number, start in enumerate(starts)
        ]

    def lacking(self, piece: Piece) -> list[Part]:
        """The parts whose file is not there, or not of its length."""
        return [part for part in self.parts if _length(self.file(part, piece)) != len(piece.samples) * part.row_bytes]

    def total_bytes(self) -> int:
        """What all files take."""
        return len(self.sides) * len(self.names) * sum(part.row_bytes for part in self.parts)

    def lacking_bytes(self) -> int:
        """What those take that are not there."""
        return sum(len(piece.samples) * part.row_bytes for piece in self.pieces() for part in self.lacking(piece))

    def file(self, part: Part, piece: Piece) -> Path:
        return self.folder / f"{part.name}-{'mirrored' if piece.mirrored else 'plain'}-{piece.number:05d}.rows"

    def write(self, piece: Piece, part: Part, maps: Tensor) -> None:
        """Keep one part (B, D, h, w) of the answers to a piece's samples. Raises SegctlError where the disk is full."""
        rows = part.bytes_of(maps)

        def fill(partial: Path) -> None:
            with partial.open("wb") as handle:
                for index, row in zip(piece.samples, rows, strict=True):
                    handle.write(row.data)
                    handle.write(_CHECKSUM.pack(self._checksum(part, index, piece.mirrored, row)))

        write_whole(self.file(part, piece), fill)

    def read(self, wanted: Sequence[tuple[int, bool]]) -> dict[str, Tensor]:
        """Every part (B, D, h, w) of the answers to samples given as (place in the split, mirrored).

        Raises SegctlError where a file has gone or does not hold what was written.
        """
        return {part.name: self._read(part, wanted) for part in self.parts}

    def _read(self, part: Part, wanted: Sequence[tuple[int, bool]]) -> Tensor:
        maps = part.empty(len(wanted))
        for row, (index, mirrored) in zip(part.bytes_of(maps), wanted, strict=True):
            number, place = divmod(index, self._each)
            path = self.file(part, Piece(number, range(0), mirrored))
            try:
                with path.open("rb") as handle:
                    handle.seek(place * part.row_bytes)
                    whole = handle.readinto(row.data) == len(row)
                    checksum = handle.read(_CHECKSUM.size)
            except OSError as error:
                raise _unreadable(path, self.names[index], error.strerror or str(error)) from error
            if not whole or checksum != _CHECKSUM.pack(self._checksum(part, index, mirrored, row)):
                raise _unreadable(path, self.names[index], "it is not what was written")
        return maps

    def _checksum(self, part: Part, index: int, mirrored: bool, row: np.ndarray) -> int:
        digest = xxhash.xxh3_64(f"{self.folder.name} {part.name} {index} {mirrored} ".encode())
        digest.update(row.data)
        return int(digest.intdigest())


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _unreadable(path: Path, name: str, reason: str) -> SegctlError:
    return SegctlError(
        f"cannot read the teacher's answer to '{name}' in '{path}': {reason}",
        "delete that file and go on with --resume: what is not there is made again",
    )
