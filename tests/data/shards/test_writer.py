"""What is written into a shard, and that it is written whole."""

import multiprocessing
import resource
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import h5py
import numpy as np
import pytest
from shard_files import SIZES, raw_sample, tiles, whole

from segctl.data.sample import RawSample
from segctl.data.shards.reader import ShardReader
from segctl.data.shards.writer import parse_codec, write_shard
from segctl.errors import InputError, SegctlError


def test_every_codec_gives_back_what_was_written(shard):
    reader = ShardReader([shard])
    for name in SIZES:
        sample = raw_sample(name)
        assert np.array_equal(reader.read(0, "images", name, whole(name)), sample.image)
        assert np.array_equal(reader.read(0, "labels", name, whole(name)), sample.label)
        assert reader.shape(0, "labels", name) == SIZES[name]


def test_instance_maps_are_kept_where_there_are_some(tmp_path):
    path = tmp_path / "a.h5"
    write_shard(path, [raw_sample("small", instance=True)], "lz4")
    instance = ShardReader([path]).read(0, "instances", "small", whole("small"))
    assert np.array_equal(instance, raw_sample("small", instance=True).instance)
    assert instance.dtype == np.uint16


def test_other_hdf5_programs_can_open_a_shard(shard):
    """zstd stores pictures as differences of rows, tile by tile; `source` stores the file; all else is as it is."""
    sample = raw_sample("exact")
    with h5py.File(shard) as file:
        assert np.array_equal(file["labels/exact"][()], sample.label)
        stored = file["images/exact"][()]
    if stored.ndim == 1:
        assert stored.tobytes() == sample.image_file
    else:
        zstd = stored[1:128, :256].astype(int).sum() != sample.image[1:128, :256].astype(int).sum()
        rows = np.cumsum(stored[:128], axis=0, dtype=np.uint8) if zstd else stored[:128]
        assert np.array_equal(rows, sample.image[:128])


def test_a_picture_file_is_kept_byte_by_byte(tmp_path):
    path, sample = tmp_path / "a.h5", raw_sample("big")
    write_shard(path, [sample], "source")
    (offset, length), *others = tiles(path, "images", "big")
    assert others == [] or length == len(sample.image_file)
    assert path.read_bytes()[offset : offset + length] == sample.image_file


def test_a_picture_without_a_file_is_packed_by_lz4_instead(tmp_path):
    path, sample = tmp_path / "a.h5", replace(raw_sample("big"), image_file=None)
    write_shard(path, [sample], "source")
    assert np.array_equal(ShardReader([path]).read(0, "images", "big", whole("big")), sample.image)


def test_a_failing_source_leaves_no_file(tmp_path):
    def samples() -> Iterator[RawSample]:
        yield raw_sample("small")
        raise InputError("the second one is bad")

    with pytest.raises(InputError, match="the second one is bad"):
        write_shard(tmp_path / "a.h5", samples(), "lz4")
    assert list(tmp_path.iterdir()) == []


def _write_with_little_room(folder: Path, answers: Connection) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        write_shard(folder / "a.h5", (raw_sample("big") for _ in range(1)), "none")
        answers.send("written")
    except SegctlError as error:
        answers.send(str(error))


def test_a_full_disk_is_one_sentence_and_leaves_no_file(tmp_path):
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_write_with_little_room, args=(tmp_path, there))
    process.start()
    process.join(30)
    assert process.exitcode == 0
    assert here.recv() == (
        f"cannot write '{tmp_path}/a.h5': File too large; "
        "free disk space or choose another folder, then run the same command again"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_codec_has_a_name():
    assert parse_codec("zstd") == "zstd"
    with pytest.raises(InputError) as caught:
        parse_codec("zst")
    assert caught.value.message == "the codec is 'zst', wanted lz4, zstd, source or none, did you mean 'zstd'?"
