"""Shards: HDF5 files of tiled, compressed, checksummed samples. The only file that opens HDF5.

    /images/<name>  uint8 (H, W, 3) RGB      /labels/<name>  uint8 (H, W) train ids, 255 ignored
    /instances/<name>  uint16 (H, W), where the source has them

Every sample is a dataset of its own at its own size, cut into even tiles of at most 256 pixels a side; each tile is compressed
and carries a fletcher32 checksum that HDF5 compares on every read. The 1.10 file format is asked for because it has checksums
on the file's own structure too.
Chosen by measurement, lz4, one core, milliseconds of CPU for a whole training sample, by the tile's largest side:

                                          64     128    256    512    whole
    CamVid 480×360, crop 240×320          1.48   1.37   1.45   1.49   1.46
    2048×1024 frames, crop 512×1024       5.4    4.6    4.3    5.3    6.7

A dataset per sample instead of one array of tiles per shard, because reading a region is then one call (0.2 against 0.8 ms) and
nothing is padded; h5py's low-level calls instead of its indexing, because that halves what is left.
"""

import io
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import h5py
import hdf5plugin
import numpy as np
from h5py import h5d, h5s

from segctl.data.sources.sample import RawSample
from segctl.errors import InputError, SegctlError, did_you_mean
from segctl.files import write_whole

Codec = Literal["lz4", "zstd", "none"]
CODECS: tuple[Codec, ...] = get_args(Codec)
TILE_PX = 256
Region = tuple[int, int, int, int]
"""(top, left, height, width), in pixels."""


def parse_codec(text: str) -> Codec:
    """The codec of that name. Raises InputError for any other word."""
    for codec in CODECS:
        if text == codec:
            return codec
    raise InputError(f"the codec is '{text}', wanted {', '.join(CODECS[:-1])} or {CODECS[-1]}{did_you_mean(text, list(CODECS))}")


def tile_shape(height: int, width: int) -> tuple[int, int]:
    """The largest even tile of at most TILE_PX a side: 360×480 is cut into 2×2 tiles of 180×240, with no padding."""
    return _even(height), _even(width)


def _even(length: int) -> int:
    return math.ceil(length / math.ceil(length / TILE_PX))


def _filters(codec: Codec) -> dict[str, Any]:
    match codec:
        case "lz4":
            return dict(hdf5plugin.LZ4())
        case "zstd":
            return dict(hdf5plugin.Zstd(clevel=3))
        case "none":
            return {}


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
            for sample in samples:
                _write_sample(file, sample, codec)
                if target.failure is not None:
                    break
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


def _write_sample(file: h5py.File, sample: RawSample, codec: Codec) -> None:
    arrays = {"images": sample.image, "labels": sample.label, "instances": sample.instance}
    for group, array in arrays.items():
        if array is None:
            continue
        chunks = tile_shape(*array.shape[:2]) + array.shape[2:]
        dataset = file.create_dataset(f"{group}/{sample.name}", data=array, chunks=chunks, fletcher32=True, **_filters(codec))
        dataset.attrs["source_sha256"] = sample.source_sha256


class ShardReader:
    """Reads regions of samples. Files are opened on first use, once per process, read-only and without a lock.

    A process that was forked closes what it inherited and opens its own; a pickled reader travels without open files.
    """

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._files: dict[int, h5py.File] = {}
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[type["ShardReader"], tuple[list[Path]]]:
        return ShardReader, (self._paths,)

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def read(self, shard: int, group: str, name: str, region: Region) -> np.ndarray:
        """A region of a sample's image or label; only the tiles it touches are read, checked and decompressed."""
        with self._damage(shard, group, name):
            return _read_region(h5d.open(self._file(shard).id, f"{group}/{name}".encode()), region)

    def shape(self, shard: int, group: str, name: str) -> tuple[int, ...]:
        """The shape of a sample's image or label as stored."""
        with self._damage(shard, group, name):
            return tuple(h5d.open(self._file(shard).id, f"{group}/{name}".encode()).shape)

    @contextmanager
    def _damage(self, shard: int, group: str, name: str) -> Iterator[None]:
        """HDF5's own errors, as one sentence that names the sample."""
        path = self._paths[shard]
        try:
            yield
        except (OSError, KeyError, RuntimeError, ValueError) as error:
            raise SegctlError(
                f"the {group[:-1]} of sample '{name}' cannot be read from '{path}': {_reason(error, path)}",
                f"run `segctl data check {path.parent.name}` to see what else is damaged, then prepare the dataset again",
            ) from error

    def _file(self, shard: int) -> h5py.File:
        if self._pid != os.getpid():
            self.close()
            self._pid = os.getpid()
        if shard not in self._files:
            self._files[shard] = h5py.File(self._paths[shard], "r", locking=False)
        return self._files[shard]


def _read_region(dataset: h5d.DatasetID, region: Region) -> np.ndarray:
    top, left, height, width = region
    tail = dataset.shape[2:]
    start, count = (top, left, *(0 for _ in tail)), (height, width, *tail)
    space = dataset.get_space()
    space.select_hyperslab(start, count)
    out = np.empty(count, dataset.dtype)
    dataset.read(h5s.create_simple(count), space, out)
    return out


def _reason(error: Exception, path: Path) -> str:
    if not path.is_file():
        return "the file is missing"
    if "filter returned failure" in str(error):
        return "a tile does not match its checksum"
    return "the file is damaged"
