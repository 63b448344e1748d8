"""Shards: HDF5 files of tiled, compressed, checksummed samples. The only file that opens HDF5.

    /images/<name>     uint8 (H, W, 3) RGB; by zstd as differences of rows within each tile (see tiles.py); with the codec
                       `source` the picture file itself, uint8 (bytes,)
    /labels/<name>     uint8 (H, W) train ids, 255 ignored
    /instances/<name>  uint16 (H, W), where the source has them
    /index/arrays      JSON: how each array is cut and packed;  /index/tiles  uint64 (T, 3): offset, bytes, XXH3 of every tile

Every array is a dataset of its own, chunked and filtered as HDF5 knows it, so other tools can open it. Our reader
(shard_reader.py) asks HDF5 for the index alone, once per file, and then reads, checks and decompresses tiles itself: no HDF5
handle outlives the opening, so a fork inherits none, and a crop costs half of what HDF5's own reading costs. What lies outside of
the index and the tiles is never looked at. The index carries checksums of its own.

The tile is chosen by measurement: with 128×128 and lz4 a training sample takes 5.2 ms, with 256×256 5.7 ms (see
benchmarks/results/tiles-2026-11-23.json).
The codec is chosen by benchmarks/loader.py: lz4 by default, 39 times as fast as the common pipeline on 2048×1024 PNGs; zstd, 17
times as fast, for half the disk space; `source` for small JPEGs, 4.7 times as fast at a tenth of lz4's disk space (see
benchmarks/results/loader-2026-11-23.json).
"""

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import hdf5plugin
import numpy as np

from segctl.data.sample import RawSample
from segctl.data.shards.tiles import (
    DamagedTileError,
    Grid,
    Packing,
    checksum,
    cut,
    even_grid,
    pack,
)
from segctl.errors import InputError, SegctlError, did_you_mean
from segctl.files import write_whole

Codec = Literal["lz4", "zstd", "source", "none"]
CODECS: tuple[Codec, ...] = get_args(Codec)
FORMAT = 2
"""Of the shards and of dataset.json. 1 had HDF5's own checksums, and no index."""


def parse_codec(text: str) -> Codec:
    """The codec of that name. Raises InputError for any other word."""
    for codec in CODECS:
        if text == codec:
            return codec
    raise InputError(f"the codec is '{text}', wanted {', '.join(CODECS[:-1])} or {CODECS[-1]}{did_you_mean(text, list(CODECS))}")


@dataclass(frozen=True)
class StoredArray:
    """One image, label or instance map in a shard; `first` is its first row in the table of tiles."""

    first: int
    packing: Packing
    dtype: str
    grid: Grid

    @property
    def differences(self) -> bool:
        """Whether rows are stored as differences: pictures are, maps of ids are not."""
        return len(self.grid.shape) == 3 and self.packing == "zstd"

    @property
    def tile_bytes(self) -> int:
        return self.grid.tile[0] * self.grid.tile[1] * self.grid.depth * np.dtype(self.dtype).itemsize


def write_shard(path: Path, samples: Iterable[RawSample], codec: Codec) -> None:
    """Write a shard under a temporary name, flush it to the disk, then rename it: a shard that exists is whole."""
    try:
        write_whole(path, lambda partial: _write_samples(partial, samples, codec))
    except OSError as error:
        raise SegctlError(
            f"cannot write the shard '{path}': {error.strerror or error}", "make room on that disk and try again"
        ) from error


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
    """A file that keeps the first failure to itself, for `_write_samples` to raise once HDF5 has let go of the file.

    HDF5 cannot be told: it puts writing off, then swallows the error, or crashes the process when it cannot close the file.
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
    """Puts samples into an open HDF5 file and remembers where their tiles came to lie."""

    def __init__(self, file: h5py.File) -> None:
        self.file = file
        self.arrays: dict[str, StoredArray] = {}
        self.tiles: list[tuple[int, int, int]] = []

    def add(self, sample: RawSample, codec: Codec) -> None:
        """With the codec `source` an image that has no file of its own, and every map of ids, is packed by lz4."""
        packing: Packing = "lz4" if codec == "source" else codec
        if codec == "source" and sample.image_file is not None:
            self._add_file(f"images/{sample.name}", sample.image_file, sample.image.shape)
        else:
            self._add_tiles(f"images/{sample.name}", sample.image, packing)
        self._add_tiles(f"labels/{sample.name}", sample.label, packing)
        if sample.instance is not None:
            self._add_tiles(f"instances/{sample.name}", sample.instance, packing)

    def _add_file(self, key: str, content: bytes, shape: tuple[int, ...]) -> None:
        self.arrays[key] = StoredArray(len(self.tiles), "file", "|u1", Grid(shape, (shape[0], shape[1])))
        dataset = self.file.create_dataset(key, data=np.frombuffer(content, np.uint8))
        self.tiles.append((dataset.id.get_offset(), len(content), checksum(content)))

    def _add_tiles(self, key: str, array: np.ndarray, packing: Packing) -> None:
        stored = StoredArray(len(self.tiles), packing, array.dtype.str, even_grid(array.shape))
        grid = stored.grid
        chunks = (*grid.tile, *array.shape[2:])
        dataset = self.file.create_dataset(key, array.shape, array.dtype, chunks=chunks, **_filters(packing))
        sums = []
        for index, tile in enumerate(cut(array, grid, differences=stored.differences)):
            content = pack(tile.tobytes(), packing)
            row, column = divmod(index, grid.across)
            dataset.id.write_direct_chunk((row * grid.tile[0], column * grid.tile[1], *(0 for _ in array.shape[2:])), content)
            sums.append(checksum(content))
        places: dict[tuple[int, ...], tuple[int, int]] = {}
        dataset.id.chunk_iter(lambda info: places.__setitem__(info.chunk_offset[:2], (info.byte_offset, info.size)))
        self.tiles += [(*places[place], total) for place, total in zip(sorted(places), sums, strict=True)]
        self.arrays[key] = stored

    def finish(self) -> None:
        """Write the index. It comes last, so that nothing moves after it was made."""
        arrays = {
            key: [stored.first, stored.packing, stored.dtype, stored.grid.shape, stored.grid.tile]
            for key, stored in self.arrays.items()
        }
        text = np.frombuffer(json.dumps(arrays).encode(), np.uint8)
        for name, content in (("arrays", text), ("tiles", np.array(self.tiles, np.uint64).reshape(-1, 3))):
            self.file.create_dataset(f"index/{name}", data=content).attrs["xxh3"] = np.uint64(checksum(content.tobytes()))
        self.file.attrs["segctl_format"] = FORMAT


def _filters(packing: Packing) -> dict[str, Any]:
    match packing:
        case "lz4":
            return dict(hdf5plugin.LZ4())
        case "zstd":
            return dict(hdf5plugin.Zstd(clevel=3))
        case "none" | "file":
            return {}


def read_index(path: Path) -> tuple[dict[str, Any], np.ndarray]:
    """What a shard holds: by an array's key the fields of its StoredArray, and uint64 (T, 3) offset, bytes, XXH3 of every tile.

    Raises DamagedTileError where a checksum does not match, and what h5py raises where the file is no HDF5 file.
    """
    with h5py.File(path, "r", locking=False) as file:
        arrays, tiles = (_checked(file[f"index/{name}"]) for name in ("arrays", "tiles"))
    return json.loads(arrays.tobytes()), tiles


def _checked(dataset: h5py.Dataset) -> np.ndarray:
    content = np.asarray(dataset[()])
    if checksum(content.tobytes()) != dataset.attrs["xxh3"]:
        raise DamagedTileError("the file's index does not match its checksum")
    return content
