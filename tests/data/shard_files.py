"""Small samples, shards of them, and the places of their tiles."""

import io
import json
from pathlib import Path

import h5py
import numpy as np
from camvid_folders import draw_sample
from PIL import Image

from segctl.data.source import RawSample

SIZES = {"big": (300, 520), "small": (40, 30), "exact": (256, 256), "line": (1, 700)}


def raw_sample(name: str, instance: bool = False) -> RawSample:
    image, label = draw_sample(*SIZES[name], seed=len(name))
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    instances = label.astype(np.uint16) * 300 if instance else None
    return RawSample(name, image, label, instances, "0" * 64, 1, image_file=file.getvalue())


def whole(name: str) -> tuple[int, int, int, int]:
    return (0, 0, *SIZES[name])


def tiles(path: Path, group: str, name: str) -> list[tuple[int, int]]:
    """(byte offset, bytes) of each tile, in reading order."""
    with h5py.File(path) as file:
        first, _, _, shape, tile = json.loads(file["index/arrays"][()].tobytes())[f"{group}/{name}"]
        table = file["index/tiles"][()]
    count = -(-shape[0] // tile[0]) * -(-shape[1] // tile[1])
    return [(int(offset), int(length)) for offset, length, _ in table[first : first + count]]


def spoil(path: Path, offset: int, length: int = 1) -> None:
    content = bytearray(path.read_bytes())
    for index in range(offset, offset + length):
        content[index] ^= 0x55
    path.write_bytes(content)
