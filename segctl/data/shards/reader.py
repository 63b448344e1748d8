"""Regions of samples out of shards: only the tiles they touch are read, checked and decompressed, without HDF5.

What a shard is, and why it is read so, stands in shards.py.
"""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from segctl.commands import command_line
from segctl.data.shards.tiles import DamagedTileError, Grid, Region, assemble, checksum, decode_file, unpack
from segctl.data.shards.writer import StoredArray, read_index
from segctl.errors import SegctlError

_DAMAGE = (DamagedTileError, OSError, KeyError, RuntimeError, ValueError, TypeError)
"""What a file that is not as it was written can raise, in HDF5, in Pillow and here."""


class _OpenShard:
    """The index of a shard, and the file to read tiles from. Raises one of _DAMAGE where it is damaged."""

    def __init__(self, path: Path) -> None:
        self.entries, self.tiles = read_index(path)
        self.file = path.open("rb", buffering=0)
        weakref.finalize(self, self.file.close)  # readers are often left to the garbage collector, which would warn

    def array(self, key: str) -> StoredArray:
        """The entry of one array: made when asked for, because a shard may hold thousands and opening it must not take long."""
        first, packing, dtype, shape, tile = self.entries[key]
        return StoredArray(first, packing, dtype, Grid(tuple(shape), tuple(tile)))

    def stored(self, first: int, count: int) -> Iterator[memoryview]:
        """The stored bytes of `count` tiles that follow one another in the table, those that lie side by side in one go.

        Raises DamagedTileError where they are not what was written.
        """
        wanted = self.tiles[first : first + count].tolist()
        start, end = wanted[0][0], wanted[-1][0] + wanted[-1][1]
        if end - start != sum(length for _, length, _ in wanted):
            for row in range(first, first + count):
                yield from self.stored(row, 1)
            return
        content = memoryview(self._bytes(start, end - start))
        for offset, length, total in wanted:
            tile = content[offset - start : offset - start + length]
            if checksum(tile) != total:
                raise DamagedTileError("a tile does not match its checksum")
            yield tile

    def _bytes(self, offset: int, length: int) -> bytes:
        if hasattr(os, "pread"):
            content = os.pread(self.file.fileno(), length, offset)
        else:
            self.file.seek(offset)
            content = self.file.read(length)
        if len(content) != length:
            raise DamagedTileError("the file is cut short")
        return content


class ShardReader:
    """Reads regions of samples. Files are opened on first use, once per process, read-only and without a lock.

    A process that was forked closes what it inherited and opens its own; a pickled reader travels without open files.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._files: dict[int, _OpenShard] = {}
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[type["ShardReader"], tuple[list[Path]]]:
        return ShardReader, (self._paths,)

    def close(self) -> None:
        for opened in self._files.values():
            opened.file.close()
        self._files.clear()

    def read(self, shard: int, group: str, name: str, region: Region) -> np.ndarray:
        """A region of a sample's image or label; only the tiles it touches are read, checked and decompressed."""
        with self._damage(shard, group, name):
            opened = self._file(shard)
            stored = opened.array(f"{group}/{name}")
            return _read_file(opened, stored, region) if stored.packing == "file" else _read_tiles(opened, stored, region)

    def holds(self, shard: int, group: str, name: str) -> bool:
        """Whether a sample has an array of that group."""
        with self._damage(shard, group, name):
            return f"{group}/{name}" in self._file(shard).entries

    def shape(self, shard: int, group: str, name: str) -> tuple[int, ...]:
        """The shape of a sample's image or label as stored."""
        with self._damage(shard, group, name):
            return self._file(shard).array(f"{group}/{name}").grid.shape

    def problem(self, shard: int) -> str:
        """What keeps a shard from being opened; empty where nothing does."""
        try:
            self._file(shard)
        except _DAMAGE as error:
            return _reason(error, self._paths[shard])
        return ""

    def stored_bytes(self, shard: int, group: str, name: str, region: Region) -> int:
        """How many bytes of the file reading that region reads."""
        with self._damage(shard, group, name):
            opened = self._file(shard)
            runs = _runs(opened.array(f"{group}/{name}"), region)
            return sum(int(opened.tiles[first : first + count, 1].sum()) for first, count in runs)

    @contextmanager
    def _damage(self, shard: int, group: str, name: str) -> Iterator[None]:
        """What can be wrong with a file, as one sentence that names the sample."""
        path = self._paths[shard]
        try:
            yield
        except _DAMAGE as error:
            check = command_line("data", "check", path.parent.name, data_root=path.parent.parent)
            raise SegctlError(
                f"the {group[:-1]} of sample '{name}' cannot be read from '{path}': {_reason(error, path)}",
                f"run `{check}` to see what else is damaged, then prepare the dataset again",
            ) from error

    def _file(self, shard: int) -> _OpenShard:
        if self._pid != os.getpid():
            self.close()
            self._pid = os.getpid()
        if shard not in self._files:
            self._files[shard] = _OpenShard(self._paths[shard])
        return self._files[shard]


def _runs(stored: StoredArray, region: Region) -> list[tuple[int, int]]:
    """(first row of the table, how many) for each row of tiles that a region needs, in reading order."""
    rows, columns = stored.grid.touched(region)
    return [(stored.first + row * stored.grid.across + columns.start, len(columns)) for row in rows]


def _read_tiles(opened: _OpenShard, stored: StoredArray, region: Region) -> np.ndarray:
    length, packing, dtype = stored.tile_bytes, stored.packing, np.dtype(stored.dtype)
    tiles = [
        np.frombuffer(unpack(content, packing, length), dtype)
        for first, count in _runs(stored, region)
        for content in opened.stored(first, count)
    ]
    return assemble(tiles, stored.grid, region, differences=stored.differences)


def _read_file(opened: _OpenShard, stored: StoredArray, region: Region) -> np.ndarray:
    image = decode_file(next(opened.stored(stored.first, 1)), stored.grid.shape)
    top, left, height, width = region
    return image[top : top + height, left : left + width]


def _reason(error: Exception, path: Path) -> str:
    if not path.is_file():
        return "the file is missing"
    if isinstance(error, DamagedTileError):
        return str(error)
    return "the file is damaged"
