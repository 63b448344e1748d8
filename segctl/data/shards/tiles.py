"""Tiles: pieces of an array, each compressed and checksummed on its own, so that a region needs only the tiles it touches.

lz4   pixels as they are, by the slow compressor (its output is smaller and decompresses faster); a tile that lz4 does not bring
      under three fifths is stored as it is, because decompressing it would cost much time and save little space
zstd  images as differences: the row above is subtracted from every row of a tile but the first, modulo 256 (65536 for
      uint16), which saves a third of the space and costs a tenth more time; id maps as they are
none  as it is

Compressed tiles are what HDF5's lz4 and zstd filters write (hdf5plugin), so any HDF5 tool can open them. The reader decompresses
them without HDF5, which saves the copies and the checksum of its filter pipeline.
The checksum is XXH3, 64 bits, of the stored bytes: ten times as fast as CRC-32 or fletcher32, and stronger.
"""

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lz4.block
import numpy as np
import xxhash
import zstandard

from segctl.data.files.pictures import decode

Packing = Literal["lz4", "zstd", "none", "file"]
"""How bytes are packed; "file" is a whole picture file, as the source had it."""
Region = tuple[int, int, int, int]
"""(top, left, height, width), in pixels."""

PICTURE_TILE_PX = (128, 128)
MAP_TILE_PX = (256, 512)
"""The largest height and width of a tile. Ids compress to next to nothing, so fewer and larger tiles are faster for maps."""
LZ4_LEVEL = 5
WORTH_PACKING = 0.6
"""lz4 must shrink a tile below this fraction of its length."""
ZSTD_LEVEL = 3
_LZ4_HEADER = struct.Struct(">QII")
"""What HDF5's lz4 filter writes in front: bytes unpacked, block size, bytes of the one block."""


class DamagedTileError(Exception):
    """Stored bytes are not what was written; the text says what shows it."""


@dataclass(frozen=True)
class Grid:
    """How an array is cut: `shape` (H, W) or (H, W, 3), and the tile's (height, width)."""

    shape: tuple[int, ...]
    tile: tuple[int, int]

    @property
    def across(self) -> int:
        """Tiles side by side."""
        return math.ceil(self.shape[1] / self.tile[1])

    @property
    def down(self) -> int:
        return math.ceil(self.shape[0] / self.tile[0])

    @property
    def depth(self) -> int:
        """Values a pixel."""
        return math.prod(self.shape[2:])

    def touched(self, region: Region) -> tuple[range, range]:
        """Rows and columns of tiles that a region touches."""
        top, left, height, width = region
        rows = range(top // self.tile[0], (top + height - 1) // self.tile[0] + 1)
        return rows, range(left // self.tile[1], (left + width - 1) // self.tile[1] + 1)


def even_grid(shape: tuple[int, ...]) -> Grid:
    """The largest even tiles within the limits: a picture of 360×480 is cut into 3×4 tiles of 120×120, without padding."""
    limits = PICTURE_TILE_PX if len(shape) == 3 else MAP_TILE_PX
    return Grid(shape, (_even(shape[0], limits[0]), _even(shape[1], limits[1])))


def _even(length: int, limit: int) -> int:
    return math.ceil(length / math.ceil(length / limit))


def checksum(content: bytes | memoryview) -> int:
    """XXH3, 64 bits."""
    return int(xxhash.xxh3_64_intdigest(content))


def file_hash(path: Path) -> str:
    """XXH3, 128 bits, of a whole file, as 32 hex digits."""
    digest = xxhash.xxh3_128()
    with path.open("rb") as handle:
        while piece := handle.read(2**22):
            digest.update(piece)
    return str(digest.hexdigest())


def cut(array: np.ndarray, grid: Grid, *, differences: bool) -> list[np.ndarray]:
    """All tiles of an array (H, W) or (H, W, 3) in reading order, each padded with zeros to the full tile.

    differences: whether each row but the first of a tile becomes its difference to the row above, modulo the size of its type.
    """
    tall, wide = grid.tile
    tiles = []
    for top in range(0, array.shape[0], tall):
        for left in range(0, array.shape[1], wide):
            part = array[top : top + tall, left : left + wide]
            tile = np.zeros((tall, wide, *array.shape[2:]), array.dtype)
            tile[: part.shape[0], : part.shape[1]] = part
            if differences:
                tile[1:] -= tile[:-1].copy()
            tiles.append(tile)
    return tiles


def assemble(tiles: list[np.ndarray], grid: Grid, region: Region, *, differences: bool) -> np.ndarray:
    """The region (h, w) or (h, w, 3) from the flat tiles that it touches, in reading order; a view into a new array."""
    rows, columns = grid.touched(region)
    tall, wide, depth = *grid.tile, grid.depth
    top, left, height, width = region
    # Only the region's columns are copied, but whole rows of tiles: differences have to be summed up from a tile's first row.
    out = np.empty((len(rows), tall, width * depth), tiles[0].dtype)
    for place, column in enumerate(columns):
        start = column * wide - left
        shown = slice(max(start, 0) * depth, min(start + wide, width) * depth)
        part = slice(max(-start, 0) * depth, min(wide, width - start) * depth)
        for row in range(len(rows)):
            out[row, :, shown] = tiles[row * len(columns) + place].reshape(tall, -1)[:, part]
    if differences:
        # Whole numbers wrap around, which undoes the subtraction; one row of all tile rows at a time.
        for row in range(1, tall):
            np.add(out[:, row], out[:, row - 1], out=out[:, row])
    skip = top - rows.start * tall
    return np.asarray(out.reshape(len(rows) * tall, width, *grid.shape[2:])[skip : skip + height])


def pack(content: bytes, packing: Packing) -> bytes:
    """Compress the bytes of one tile."""
    match packing:
        case "lz4":
            packed = lz4.block.compress(content, mode="high_compression", compression=LZ4_LEVEL, store_size=False)
            if len(packed) >= WORTH_PACKING * len(content):
                packed = content  # equal lengths tell HDF5's filter that the block is not compressed
            return _LZ4_HEADER.pack(len(content), len(content), len(packed)) + bytes(packed)
        case "zstd":
            return bytes(zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(content))
        case "none" | "file":
            return content


def unpack(content: memoryview, packing: Packing, length: int) -> bytes | memoryview:
    """Undo `pack` for a tile of `length` bytes. Raises DamagedTileError if the content is not what `pack` gave."""
    try:
        match packing:
            case "lz4":
                packed = content[_LZ4_HEADER.size :]
                unpacked = packed if len(packed) == length else lz4.block.decompress(packed, uncompressed_size=length)
            case "zstd":
                unpacked = zstandard.ZstdDecompressor().decompress(content, max_output_size=length)
            case "none" | "file":
                unpacked = content
    except (lz4.block.LZ4BlockError, zstandard.ZstdError, struct.error) as error:
        raise DamagedTileError(f"a tile cannot be decompressed ({error})") from error
    if len(unpacked) != length:
        raise DamagedTileError(f"a tile holds {len(unpacked)} bytes, wanted {length}")
    return unpacked


def decode_file(content: memoryview, shape: tuple[int, ...]) -> np.ndarray:
    """The image of a picture file, uint8 (H, W, 3). Raises DamagedTileError if it does not have that shape."""
    image = decode(content)
    if image.shape != shape or image.dtype != np.uint8:
        raise DamagedTileError(f"its file decodes to {image.dtype} {image.shape}, wanted uint8 {shape}")
    return image
