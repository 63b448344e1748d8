"""Shards: HDF5 files of tiled, compressed, checksummed samples, written and read. The only file that opens HDF5.

    /images/<name>     uint8 (H, W, 3) RGB, or uint8 or uint16 (H, W, N) of N bands; by zstd as differences of rows
                       within each tile (see tiles.py); with the codec `source` the picture file itself, uint8 (bytes,)
    /labels/<name>     uint8 (H, W) train ids, 255 ignored; absent for a picture without label
    /instances/<name>  uint16 (H, W), if the source has them
    /votes/<name>      uint8 (H, W), if several raters labelled the sample: the number of each pixel's ballot (see raters.py)
    /index/arrays      JSON: how each array is cut and packed;  /index/tiles  uint64 (T, 3): offset, bytes, XXH3 of every tile

Every array is an HDF5 dataset, chunked and filtered in HDF5's own way, so other tools can open it. The reader asks HDF5 for the
index alone, once per file, and then reads, checks and decompresses tiles itself. So no HDF5 handle stays open for a fork to
inherit, and a crop costs half of what HDF5's own reading costs. Nothing outside of the index and the tiles is ever read. The
index carries checksums of its own.

The tile is chosen by measurement: with 128×128 and lz4 a training sample takes 5.2 ms, with 256×256 5.7 ms (see
benchmarks/results/tiles-2026-11-23.json).
The codec is chosen by benchmarks/loader.py: lz4 by default, 39 times as fast as the common pipeline on 2048×1024 PNGs; zstd, 17
times as fast, for half the disk space; `source` for small JPEGs, 4.7 times as fast at a tenth of lz4's disk space (see
benchmarks/results/loader-2026-11-23.json).
"""

import io
import json
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import hdf5plugin
import numpy as np

from segctl.data.advice import check_line
from segctl.data.files.remote import RangedFile, remote_file
from segctl.data.shards.tiles import (
    DamagedTileError,
    Grid,
    Packing,
    Region,
    assemble,
    checksum,
    cut,
    decode_file,
    even_grid,
    pack,
    unpack,
)
from segctl.data.source import RawSample
from segctl.errors import InputError, did_you_mean
from segctl.files import write_whole

Codec = Literal["lz4", "zstd", "source", "none"]
CODECS: tuple[Codec, ...] = get_args(Codec)
SHARD_FORMAT = 2
"""Of the shards and of dataset.json. Format 1 had HDF5's own checksums and no index."""

MISSING = "the file is missing"
"""The problem of a shard that is not there."""

_DAMAGE = (DamagedTileError, OSError, KeyError, RuntimeError, ValueError, TypeError)
"""The errors that a damaged file can raise, in HDF5, in Pillow and here."""


def parse_codec(text: str) -> Codec:
    """The codec of that name. Raises InputError for any other word."""
    for codec in CODECS:
        if text == codec:
            return codec
    raise InputError(f"the codec is '{text}', wanted {', '.join(CODECS[:-1])} or {CODECS[-1]}{did_you_mean(text, list(CODECS))}")


@dataclass(frozen=True)
class ArrayEntry:
    """The index's entry of one image, label or instance map; `first` is its first row in the table of tiles."""

    first: int
    packing: Packing
    dtype: str
    grid: Grid

    @property
    def differences(self) -> bool:
        """Whether rows are stored as differences: those of images by zstd are, those of id maps never."""
        return len(self.grid.shape) == 3 and self.packing == "zstd"

    @property
    def tile_bytes(self) -> int:
        return self.grid.tile[0] * self.grid.tile[1] * self.grid.depth * np.dtype(self.dtype).itemsize

    def rows(self, region: Region) -> list[tuple[int, int]]:
        """(first row of the table of tiles, how many) for each row of tiles that a region touches, in reading order."""
        rows, columns = self.grid.touched(region)
        return [(self.first + row * self.grid.across + columns.start, len(columns)) for row in rows]


def write_shard(path: Path, samples: Iterable[RawSample], codec: Codec) -> None:
    """Write a shard under a temporary name, flush it to the disk, then rename it: a shard that exists is whole.

    Raises SegctlError if the disk is full.
    """
    write_whole(path, lambda partial: _write_samples(partial, samples, codec))


def _write_samples(path: Path, samples: Iterable[RawSample], codec: Codec) -> None:
    with _RememberingFile(path, "w+b") as target:
        with h5py.File(target, "w", libver=("v110", "v110")) as file:
            writer = _Writer(file)
            for sample in samples:
                writer.add(sample, codec)
                if target.failure is not None:
                    break
            writer.finish()
        if target.failure is not None:
            raise target.failure


class _RememberingFile(io.FileIO):
    """A file that remembers the first failure instead of raising it; `_write_samples` raises it after HDF5 has closed the file.

    HDF5 cannot handle a failure: it defers writes, then swallows the error, or crashes the process when it cannot close the file.
    """

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        length = len(rest)
        try:
            while rest and self.failure is None:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.failure = error
        return length

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size) if self.failure is None else size or 0
        except OSError as error:
            self.failure = error
            return size or 0


class _Writer:
    """Puts samples into an open HDF5 file and remembers at which offsets their tiles lie."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.arrays: dict[str, ArrayEntry] = {}
        self.tiles: list[tuple[int, int, int]] = []

    def add(self, sample: RawSample, codec: Codec) -> None:
        """With the codec `source`, id maps and images without a file of their own are packed by lz4."""
        packing: Packing = "lz4" if codec == "source" else codec
        if codec == "source" and sample.image_file is not None:
            self._add_file(f"images/{sample.name}", sample.image_file, sample.image.shape)
        else:
            self._add_tiles(f"images/{sample.name}", sample.image, packing)
        if sample.label is not None:
            self._add_tiles(f"labels/{sample.name}", sample.label, packing)
        if sample.instance is not None:
            self._add_tiles(f"instances/{sample.name}", sample.instance, packing)
        if sample.votes is not None:
            self._add_tiles(f"votes/{sample.name}", sample.votes.numbers, packing)

    def _add_file(self, key: str, content: bytes, shape: tuple[int, ...]) -> None:
        self.arrays[key] = ArrayEntry(len(self.tiles), "file", "|u1", Grid(shape, (shape[0], shape[1])))
        dataset = self.file.create_dataset(key, data=np.frombuffer(content, np.uint8))
        self.tiles.append((dataset.id.get_offset(), len(content), checksum(content)))

    def _add_tiles(self, key: str, array: np.ndarray, packing: Packing) -> None:
        """Write an array (H, W) or (H, W, 3) of any integer type, tile by tile."""
        entry = ArrayEntry(len(self.tiles), packing, array.dtype.str, even_grid(array.shape))
        grid = entry.grid
        chunks = (*grid.tile, *array.shape[2:])
        dataset = self.file.create_dataset(key, array.shape, array.dtype, chunks=chunks, **_filters(packing))
        # Our own compressor writes the chunks directly: HDF5's filters would compress again, and with worse settings.
        sums = []
        for index, tile in enumerate(cut(array, grid, differences=entry.differences)):
            content = pack(tile.tobytes(), packing)
            row, column = divmod(index, grid.across)
            dataset.id.write_direct_chunk((row * grid.tile[0], column * grid.tile[1], *(0 for _ in array.shape[2:])), content)
            sums.append(checksum(content))
        # HDF5 tells only afterwards where it put the chunks, and not in reading order.
        places: dict[tuple[int, ...], tuple[int, int]] = {}
        dataset.id.chunk_iter(lambda info: places.__setitem__(info.chunk_offset[:2], (info.byte_offset, info.size)))
        self.tiles += [(*places[place], total) for place, total in zip(sorted(places), sums, strict=True)]
        self.arrays[key] = entry

    def finish(self) -> None:
        """Write the index. It comes last, because its offsets must not change after it was made."""
        arrays = {
            key: [entry.first, entry.packing, entry.dtype, entry.grid.shape, entry.grid.tile]
            for key, entry in self.arrays.items()
        }
        text = np.frombuffer(json.dumps(arrays).encode(), np.uint8)
        for name, content in (("arrays", text), ("tiles", np.array(self.tiles, np.uint64).reshape(-1, 3))):
            self.file.create_dataset(f"index/{name}", data=content).attrs["xxh3"] = np.uint64(checksum(content.tobytes()))
        self.file.attrs["segctl_format"] = SHARD_FORMAT


def _filters(packing: Packing) -> dict[str, Any]:
    match packing:
        case "lz4":
            return dict(hdf5plugin.LZ4())
        case "zstd":
            return dict(hdf5plugin.Zstd(clevel=3))
        case "none" | "file":
            return {}


def _read_index(path: Path | RangedFile) -> tuple[bytes, np.ndarray]:
    """The index of a shard: JSON, by an array's key its ArrayEntry's fields; uint64 (T, 3) offset, bytes, XXH3 of every tile.

    Raises DamagedTileError if a checksum does not match, and what h5py raises if the file is not an HDF5 file.
    """
    with h5py.File(path, "r", locking=False) as file:
        arrays, tiles = (_checked(file[f"index/{name}"]) for name in ("arrays", "tiles"))
    return arrays.tobytes(), tiles


def _checked(dataset: h5py.Dataset) -> np.ndarray:
    content = np.asarray(dataset[()])
    if checksum(content.tobytes()) != dataset.attrs["xxh3"]:
        raise DamagedTileError("the file's index does not match its checksum")
    return content


class _OpenShard:
    """The index of a shard, and the file to read tiles from. Raises one of _DAMAGE if the shard is damaged or another one.

    content_hash: XXH3, 64 bits, of the index, as 16 hex digits: of every array's name and form, and of every tile's checksum.
    """

    def __init__(self, path: Path, index: str, content_hash: str | None) -> None:
        self.remote = None if path.is_file() else remote_file(path, index)
        try:
            arrays, self.tiles = _read_index(path if self.remote is None else self.remote)
        except _DAMAGE:
            if self.remote is None:
                raise
            self.remote.forget(0, self.remote.size)  # the disk may have lost it
            arrays, self.tiles = _read_index(self.remote)
        self.content_hash = f"{checksum(arrays + self.tiles.tobytes()):016x}"
        if content_hash not in (None, self.content_hash):
            raise DamagedTileError(f"it is sound, but not the file that '{index}' describes; another dataset's may have its name")
        self.entries = json.loads(arrays)
        self.file = path.open("rb", buffering=0) if self.remote is None else self.remote
        weakref.finalize(self, self.file.close)  # readers are often left to the garbage collector, which would warn

    def array(self, key: str) -> ArrayEntry:
        """The entry of one array. Made on demand: a shard may hold thousands, and opening it must be quick."""
        first, packing, dtype, shape, tile = self.entries[key]
        return ArrayEntry(first, packing, dtype, Grid(tuple(shape), tuple(tile)))

    def tile_contents(self, first: int, count: int) -> Iterator[memoryview]:
        """The bytes of `count` consecutive tiles of the table, as they lie in the file, checked.

        Tiles that are neighbours in the file are read at once. Raises DamagedTileError if a tile is not what was written.
        """
        wanted = self.tiles[first : first + count].tolist()
        start, end = wanted[0][0], wanted[-1][0] + wanted[-1][1]
        if end - start != sum(length for _, length, _ in wanted):
            for row in range(first, first + count):
                yield from self.tile_contents(row, 1)
            return
        content = memoryview(self._bytes(start, end - start))
        for offset, length, total in wanted:
            tile = content[offset - start : offset - start + length]
            if checksum(tile) != total:
                tile = self._fetched_again(offset, length)
            if checksum(tile) != total:
                raise DamagedTileError("a tile does not match its checksum")
            yield tile

    def _fetched_again(self, offset: int, length: int) -> memoryview:
        """A tile of a remote file that the disk may have lost, such as when the power failed; of another file as it is."""
        if self.remote is not None:
            self.remote.forget(offset, length)
        return memoryview(self._bytes(offset, length))

    def _bytes(self, offset: int, length: int) -> bytes:
        if self.remote is not None:
            return self.remote.read_at(offset, length)
        # One system call that moves no shared position, so threads may read from one file.
        if hasattr(os, "pread"):
            content = os.pread(self.file.fileno(), length, offset)
        else:
            self.file.seek(offset)
            content = self.file.read(length)
        if len(content) != length:
            raise DamagedTileError("the file is cut short")
        return content


class ShardReader:
    """Reads regions of samples out of a dataset's shards.

    Files are opened on first use, once per process, read-only and without a lock. A forked process closes what it inherited and
    opens its own; a pickled reader travels without open files. Samples are named by shard number, group ("images", "labels",
    "instances" or "votes") and name.
    """

    def __init__(self, paths: list[Path], index: str = "dataset.json", hashes: Sequence[str] | None = None) -> None:
        """index: the name of the dataset's index beside the files.  hashes: the `content_hash` that each must have, if known."""
        self._paths, self._index, self._hashes = paths, index, hashes
        self._files: dict[int, _OpenShard] = {}
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[type["ShardReader"], tuple[list[Path], str, Sequence[str] | None]]:
        return ShardReader, (self._paths, self._index, self._hashes)

    def close(self) -> None:
        for opened in self._files.values():
            opened.file.close()
        self._files.clear()

    def read(self, shard: int, group: str, name: str, region: Region) -> np.ndarray:
        """A region of a sample, (h, w) or (h, w, 3) in the dtype that was written; only the tiles it touches are read.

        Raises InputError that names the sample if the file is missing or damaged.
        """
        with self._worded_damage(shard, group, name):
            opened = self._file(shard)
            entry = opened.array(f"{group}/{name}")
            if entry.packing == "file":
                image = decode_file(next(opened.tile_contents(entry.first, 1)), entry.grid.shape)
                top, left, height, width = region
                return image[top : top + height, left : left + width]
            length, packing, dtype = entry.tile_bytes, entry.packing, np.dtype(entry.dtype)
            tiles = [
                np.frombuffer(unpack(content, packing, length), dtype)
                for first, count in entry.rows(region)
                for content in opened.tile_contents(first, count)
            ]
            return assemble(tiles, entry.grid, region, differences=entry.differences)

    def holds(self, shard: int, group: str, name: str) -> bool:
        """Whether a sample has an array of that group."""
        with self._worded_damage(shard, group, name):
            return f"{group}/{name}" in self._file(shard).entries

    def shape(self, shard: int, group: str, name: str) -> tuple[int, ...]:
        """(H, W) or (H, W, 3) of a sample's array, from the index."""
        with self._worded_damage(shard, group, name):
            return self._file(shard).array(f"{group}/{name}").grid.shape

    def file_bytes(self, shard: int) -> int:
        """The size of a shard's file. Raises FileNotFoundError."""
        path = self._paths[shard]
        remote = None if path.is_file() else remote_file(path, self._index)
        return path.stat().st_size if remote is None else remote.size

    def whole_file(self, shard: int) -> Path:
        """A shard's file on this machine; a remote one is fetched as a whole. Raises FileNotFoundError."""
        path = self._paths[shard]
        remote = None if path.is_file() else remote_file(path, self._index)
        return path if remote is None else remote.whole()

    def problem(self, shard: int) -> str:
        """Why a shard cannot be opened; empty if it can."""
        try:
            self._file(shard)
        except _DAMAGE as error:
            return _reason(error, self._paths[shard])
        return ""

    def content_hash(self, shard: int) -> str:
        """Hash of what a shard holds, 16 hex digits, from its index alone. Raises what h5py raises for a damaged file."""
        return self._file(shard).content_hash

    def bytes_read(self, shard: int, group: str, name: str, region: Region) -> int:
        """How many bytes of the file `read` reads for a region."""
        with self._worded_damage(shard, group, name):
            opened = self._file(shard)
            runs = opened.array(f"{group}/{name}").rows(region)
            return sum(int(opened.tiles[first : first + count, 1].sum()) for first, count in runs)

    @contextmanager
    def _worded_damage(self, shard: int, group: str, name: str) -> Iterator[None]:
        """Turn what a damaged file raises into one sentence that names the sample."""
        path = self._paths[shard]
        try:
            yield
        except _DAMAGE as error:
            raise InputError(
                f"the {group[:-1]} of sample '{name}' cannot be read from '{path}': {_reason(error, path)}",
                f"run `{check_line(path.parent)}` to see what else is damaged, then prepare the dataset again",
            ) from error

    def _file(self, shard: int) -> _OpenShard:
        if self._pid != os.getpid():
            self.close()
            self._pid = os.getpid()
        if shard not in self._files:
            wanted = None if self._hashes is None else self._hashes[shard]
            self._files[shard] = _OpenShard(self._paths[shard], self._index, wanted)
        return self._files[shard]


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, FileNotFoundError):
        return MISSING
    if isinstance(error, DamagedTileError):
        return str(error)
    return "the file is damaged"
