"""Reading regions: the right pixels from the fewest tiles, damage named, in any process."""

import multiprocessing
import pickle
from multiprocessing.connection import Connection

import numpy as np
import pytest
from shard_files import raw_sample, spoil, tiles, whole

from segctl.data.shards.reader import ShardReader
from segctl.data.shards.writer import CODECS, write_shard
from segctl.errors import SegctlError


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
    assert reader.stored_bytes(0, "images", "big", (110, 190, 80, 250)) == 4 * 100 * 104 * 3
    assert reader.stored_bytes(0, "images", "big", whole("big")) == 15 * 100 * 104 * 3


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


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
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
    ShardReader([tmp_path / "not-there-yet.h5"])
