"""A teacher's outputs for the fixed views of a split, in files: computed once, and read by every run that needs the same.

    <folder>/<map>-<plain or mirrored>-00003.rows      one map of some consecutive samples, each followed by its checksum

A file that exists is whole. Each map (main logits, auxiliary logits, features) has its own files, so a run that needs more maps
adds only those. Values are stored to the bit, and read back in the memory order that the network gave them, so that sums over
them come out the same. Each checksum is verified on reading; it covers the sample's index, so no row can stand in for another.
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

SAMPLES_A_FILE = 16
"""About how many samples share a file; they are all in memory while the file is made."""
_CHECKSUM = struct.Struct("<Q")


@dataclass(frozen=True)
class OutputMap:
    """One map of a teacher's output (`main`, `aux` or `features`): its name, and its shape (D, h, w) for one image."""

    name: str
    shape: tuple[int, int, int]
    dtype: torch.dtype
    channels_last: bool

    @classmethod
    def of(cls, name: str, maps: Tensor) -> "OutputMap":
        """The description of maps (B, D, h, w)."""
        last = not maps.is_contiguous() and maps.is_contiguous(memory_format=torch.channels_last)
        return cls(name, (maps.shape[1], maps.shape[2], maps.shape[3]), maps.dtype, last)

    @property
    def row_bytes(self) -> int:
        """Bytes of one image's map with its checksum."""
        return math.prod(self.shape) * self.dtype.itemsize + _CHECKSUM.size

    def empty(self, images: int) -> Tensor:
        """Memory for the maps (B, D, h, w) of some images, in the network's memory order."""
        depth, height, width = self.shape
        if self.channels_last:
            return torch.empty((images, height, width, depth), dtype=self.dtype).permute(0, 3, 1, 2)
        return torch.empty((images, depth, height, width), dtype=self.dtype)

    def bytes_of(self, maps: Tensor) -> np.ndarray:
        """Maps (B, D, h, w) as bytes, uint8 (B, bytes of one map): the maps' own memory, or a copy if its order is another."""
        laid = maps.permute(0, 2, 3, 1) if self.channels_last else maps
        return np.asarray(laid.contiguous().flatten().view(torch.uint8).view(len(maps), -1).numpy())


@dataclass(frozen=True)
class Chunk:
    """The samples that share a file, by their indices in the split, and whether they are mirrored."""

    number: int
    samples: range
    mirrored: bool


@dataclass(frozen=True)
class TeacherOutputs:
    """The teacher's outputs for all samples of a split, in the order of `names`. The files may not exist yet.

    folder: holds the files; its name is a hash of everything that the outputs depend on.  sides: as `fixed_views.sides` gives
    them.  forward_batch: images per forward pass of the teacher; on some devices the last digits depend on it.
    """

    folder: Path
    maps: tuple[OutputMap, ...]
    names: tuple[str, ...]
    sides: tuple[bool, ...]
    forward_batch: int

    @property
    def _chunk_size(self) -> int:
        # A whole number of forward passes.
        return self.forward_batch * max(1, SAMPLES_A_FILE // self.forward_batch)

    def chunks(self) -> list[Chunk]:
        """The samples of every file."""
        count = len(self.names)
        starts = range(0, count, self._chunk_size)
        return [
            Chunk(number, range(start, min(start + self._chunk_size, count)), mirrored)
            for mirrored in self.sides
            for number, start in enumerate(starts)
        ]

    def missing(self, chunk: Chunk) -> list[OutputMap]:
        """The maps whose file for this chunk does not exist or has the wrong length."""
        return [each for each in self.maps if _length(self.file(each, chunk)) != len(chunk.samples) * each.row_bytes]

    def total_bytes(self) -> int:
        """Size of all files."""
        return len(self.sides) * len(self.names) * sum(each.row_bytes for each in self.maps)

    def missing_bytes(self) -> int:
        """Size of the files that do not exist yet."""
        return sum(len(chunk.samples) * each.row_bytes for chunk in self.chunks() for each in self.missing(chunk))

    def file(self, output: OutputMap, chunk: Chunk) -> Path:
        return self.folder / f"{output.name}-{'mirrored' if chunk.mirrored else 'plain'}-{chunk.number:05d}.rows"

    def write(self, chunk: Chunk, output: OutputMap, maps: Tensor) -> None:
        """Write the file of one map (B, D, h, w) for a chunk of B samples. Raises SegctlError if the disk is full."""
        rows = output.bytes_of(maps)

        def fill(partial: Path) -> None:
            with partial.open("wb") as handle:
                for index, row in zip(chunk.samples, rows, strict=True):
                    handle.write(row.data)
                    handle.write(_CHECKSUM.pack(self._checksum(output, index, chunk.mirrored, row)))

        write_whole(self.file(output, chunk), fill)

    def read(self, wanted: Sequence[tuple[int, bool]]) -> dict[str, Tensor]:
        """Every map (B, D, h, w) by name, for B samples given as (index in the split, mirrored).

        Raises SegctlError if a file is missing or damaged.
        """
        return {each.name: self._read(each, wanted) for each in self.maps}

    def _read(self, output: OutputMap, wanted: Sequence[tuple[int, bool]]) -> Tensor:
        maps = output.empty(len(wanted))
        # bytes_of is a view of the new maps' own memory, so reading into its rows fills them.
        for row, (index, mirrored) in zip(output.bytes_of(maps), wanted, strict=True):
            number, place = divmod(index, self._chunk_size)
            path = self.file(output, Chunk(number, range(0), mirrored))
            try:
                with path.open("rb") as handle:
                    handle.seek(place * output.row_bytes)
                    whole = handle.readinto(row.data) == len(row)
                    checksum = handle.read(_CHECKSUM.size)
            except OSError as error:
                raise _unreadable(path, self.names[index], error.strerror or str(error)) from error
            if not whole or checksum != _CHECKSUM.pack(self._checksum(output, index, mirrored, row)):
                raise _unreadable(path, self.names[index], "its content does not match its checksum")
        return maps

    def _checksum(self, output: OutputMap, index: int, mirrored: bool, row: np.ndarray) -> int:
        """xxh3 of a stored row, uint8 (n,), and of what it holds, so that a row in another row's place is noticed."""
        digest = xxhash.xxh3_64(f"{self.folder.name} {output.name} {index} {mirrored} ".encode())
        digest.update(row.data)
        return int(digest.intdigest())


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _unreadable(path: Path, name: str, reason: str) -> SegctlError:
    return SegctlError(
        f"cannot read the teacher's output for '{name}' from '{path}': {reason}",
        "delete that file and add --resume to the command: missing files are computed again",
    )
