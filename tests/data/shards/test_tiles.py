import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segctl.data.shards.tiles import DamagedTileError, Grid, assemble, checksum, cut, even_grid, file_hash, pack, unpack


def test_tiles_are_even_and_those_of_maps_are_larger():
    assert even_grid((360, 480, 3)).tile == (120, 120)
    assert even_grid((1024, 2048, 3)).tile == (128, 128)
    assert even_grid((129, 257, 3)).tile == (65, 86)
    assert even_grid((360, 480)).tile == (180, 480)
    assert even_grid((1, 7)).tile == (1, 7)


def test_a_region_needs_the_tiles_it_touches():
    grid = Grid((100, 200), (10, 50))
    assert (grid.down, grid.across) == (10, 4)
    assert grid.touched((10, 50, 10, 50)) == (range(1, 2), range(1, 2))
    assert grid.touched((9, 49, 2, 2)) == (range(0, 2), range(0, 2))


def test_differences_of_rows_by_hand():
    image = np.array([[[10, 10, 10]], [[9, 12, 10]], [[9, 0, 255]]], np.uint8)
    (tile,) = cut(image, Grid(image.shape, (3, 1)), differences=True)
    assert tile[:, 0].tolist() == [[10, 10, 10], [255, 2, 0], [0, 244, 245]]


@given(st.integers(1, 40), st.integers(1, 50), st.integers(1, 16), st.integers(1, 16), st.booleans(), st.integers(0, 2**32 - 1))
def test_any_region_is_put_together_as_it_was(height, width, tall, wide, differences, seed):
    random = np.random.default_rng(seed)
    image = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    grid = Grid(image.shape, (tall, wide))
    tiles = cut(image, grid, differences=differences)
    top, left = int(random.integers(height)), int(random.integers(width))
    region = (top, left, int(random.integers(1, height - top + 1)), int(random.integers(1, width - left + 1)))
    rows, columns = grid.touched(region)
    needed = [tiles[row * grid.across + column] for row in rows for column in columns]
    wanted = image[top : top + region[2], left : left + region[3]]
    assert np.array_equal(assemble(needed, grid, region, differences=differences), wanted)


@pytest.mark.parametrize("packing", ["lz4", "zstd", "none"])
def test_packed_bytes_come_back(packing):
    for content in (b"a" * 1000, np.random.default_rng(0).bytes(1000)):
        assert bytes(unpack(memoryview(pack(content, packing)), packing, 1000)) == content


def test_what_hardly_shrinks_is_stored_as_it_is():
    content = np.random.default_rng(0).bytes(1000)
    assert pack(content, "lz4")[16:] == content
    assert len(pack(content[:700] * 2, "lz4")) < 1000


@pytest.mark.parametrize("packing", ["lz4", "zstd"])
def test_a_tile_of_another_length_is_damaged(packing):
    packed = memoryview(pack(b"a" * 1000, packing))
    with pytest.raises(DamagedTileError):
        unpack(packed, packing, 999)
    with pytest.raises(DamagedTileError):
        unpack(packed[:-1], packing, 1000)


def test_the_checksum_is_the_published_one():
    """XXH3 of the empty input: its specification's own value."""
    assert checksum(b"") == 0x2D06800538D394C2


def test_the_hash_of_a_file_sees_all_of_it(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"")
    assert file_hash(path) == "99aa06d3014798d86001c324468d497f"
    path.write_bytes(bytes(2**22 + 1))
    one = file_hash(path)
    path.write_bytes(bytes(2**22) + b"\1")
    assert file_hash(path) != one
