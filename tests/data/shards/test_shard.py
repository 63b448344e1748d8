"""Writing shards whole, and reading regions: the right pixels from the fewest tiles, damage named, in any process."""

import multiprocessing
import pickle
import resource
from collections.abc import Iterator
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import h5py
import numpy as np
import pytest
from shard_files import SIZES, raw_sample, spoil, tiles, whole

from segctl.data.shards.shard import CODECS, ShardReader, parse_codec, write_shard
from segctl.data.source import RawSample
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


def test_regions_are_the_same_as_slices(shard):
    reader, sample = ShardReader([shard]), raw_sample("big")
    for top, left, height, width in ((0, 0, 1, 1), (299, 519, 1, 1), (140, 250, 40, 200), (10, 0, 290, 520)):
        region = (top, left, height, width)
        here = (slice(top, top + height), slice(left, left + width))
        assert np.array_equal(reader.read(0, "images", "big", region), sample.image[here])
        assert np.array_equal(reader.read(0, "labels", "big", region), sample.label[here])


@pytest.mark.parametrize("codec", ["lz4", "zstd", "none"])
def test_a_crop_touches_only_its_tiles(tmp_path, codec):
    """Every other tile of the sample is destroyed, and the crop still reads."""
    path = tmp_path / "a.h5"
    write_shard(path, [raw_sample("big")], codec)
    found = tiles(path, "images", "big")
    assert len(found) == 15  # 3×5 tiles of 100×104
    for index, (offset, length) in enumerate(found):
        if index not in (6, 7, 8, 9):
            spoil(path, offset, length)
    read = ShardReader([path]).read(0, "images", "big", (110, 190, 80, 250))
    assert np.array_equal(read, raw_sample("big").image[110:190, 190:440])


def test_the_bytes_a_region_costs_are_those_of_its_tiles(tmp_path):
    path = tmp_path / "a.h5"
    write_shard(path, [raw_sample("big")], "none")
    reader = ShardReader([path])
    assert reader.bytes_read(0, "images", "big", (110, 190, 80, 250)) == 4 * 100 * 104 * 3
    assert reader.bytes_read(0, "images", "big", whole("big")) == 15 * 100 * 104 * 3


def test_a_damaged_tile_is_named(shard):
    offset, length = tiles(shard, "labels", "exact")[0]
    spoil(shard, offset + length // 2)
    reader = ShardReader([shard])
    with pytest.raises(SegctlError) as caught:
        reader.read(0, "labels", "exact", (3, 3, 4, 4))
    assert (
        caught.value.message == f"the label of sample 'exact' cannot be read from '{shard}': a tile does not match its checksum"
    )
    assert caught.value.hint.startswith(f"run `segctl data check {shard.parent.name} --data-root {shard.parent.parent}`")
    assert np.array_equal(reader.read(0, "images", "exact", whole("exact")), raw_sample("exact").image)


@pytest.mark.parametrize("codec", CODECS)
def test_no_changed_byte_gives_a_wrong_pixel(tmp_path, codec):
    """Every byte in a tile is noticed when the tile is read; elsewhere a byte is noticed or does not matter."""
    path, hurt = tmp_path / "a.h5", tmp_path / "b.h5"
    sample = raw_sample("small")
    write_shard(path, [sample], codec)
    inside = {
        place
        for group in ("images", "labels")
        for offset, length in tiles(path, group, "small")
        for place in range(offset, offset + length)
    }
    content, random, noticed = path.read_bytes(), np.random.default_rng(0), 0
    for offset in random.integers(0, len(content), 150):
        changed = bytearray(content)
        changed[offset] ^= int(random.integers(1, 256))
        hurt.write_bytes(changed)
        reader = ShardReader([hurt])
        try:
            assert np.array_equal(reader.read(0, "images", "small", whole("small")), sample.image)
            assert np.array_equal(reader.read(0, "labels", "small", whole("small")), sample.label)
            assert int(offset) not in inside
        except SegctlError:
            noticed += 1
        reader.close()
    assert noticed > 20


def test_a_missing_shard_is_named(tmp_path):
    path = tmp_path / "gone.h5"
    with pytest.raises(SegctlError) as caught:
        ShardReader([path]).read(0, "images", "small", whole("small"))
    assert caught.value.message == f"the image of sample 'small' cannot be read from '{path}': the file is missing"


def test_a_file_that_is_no_shard_is_named(tmp_path):
    path = tmp_path / "a.h5"
    path.write_text("no HDF5")
    with pytest.raises(SegctlError) as caught:
        ShardReader([path]).read(0, "images", "small", whole("small"))
    assert caught.value.message == f"the image of sample 'small' cannot be read from '{path}': the file is damaged"


def _checksum(reader: ShardReader, answers: Connection) -> None:
    answers.send(int(reader.read(0, "images", "big", whole("big")).sum()))


@pytest.mark.parametrize("method", ["fork", "spawn", pytest.param("forkserver", marks=pytest.mark.slow)])
def test_a_reader_that_is_open_can_be_used_in_another_process(tmp_path, method):
    path = tmp_path / "a.h5"
    write_shard(path, [raw_sample("big")], "lz4")
    reader = ShardReader([path])
    wanted = int(reader.read(0, "images", "big", whole("big")).sum())
    context = multiprocessing.get_context(method)
    here, there = context.Pipe()
    process = context.Process(target=_checksum, args=(reader, there))
    process.start()
    assert here.recv() == wanted
    process.join(30)
    assert int(reader.read(0, "images", "big", whole("big")).sum()) == wanted


def test_a_pickled_reader_has_no_open_files(shard):
    reader = ShardReader([shard])
    reader.read(0, "labels", "small", whole("small"))
    copy = pickle.loads(pickle.dumps(reader))
    assert np.array_equal(copy.read(0, "labels", "small", whole("small")), raw_sample("small").label)


def test_opening_is_lazy(tmp_path):
    reader = ShardReader([tmp_path / "not-there-yet.h5"])
    with pytest.raises(InputError, match="the file is missing"):
        reader.read(0, "labels", "small", whole("small"))
