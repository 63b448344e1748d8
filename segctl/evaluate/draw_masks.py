"""Class maps as pictures: index PNGs with class colours as palette, and overlays on the image. Needs no torch."""

import struct
import zlib
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segctl.files import write_whole

RGB = NDArray[np.uint8]
"""A picture: uint8 (H, W, 3)."""

OPACITY = 0.5


def write_picture(path: Path, picture: RGB) -> None:
    """Write a picture uint8 (H, W, 3) as PNG, whole."""
    write_whole(path, lambda partial: Image.fromarray(picture).save(partial, format="PNG"))


def write_index(path: Path, ids: NDArray[np.uint8], palette: NDArray[np.uint8] | None = None) -> None:
    """Write ids uint8 (H, W) as a one-channel PNG, whole. palette: uint8 (256, 3), the colours that viewers show."""
    picture = Image.fromarray(ids)
    if palette is not None:
        picture.putpalette(palette.tobytes())  # changes the mode to P and keeps the ids
    write_whole(path, lambda partial: picture.save(partial, format="PNG"))


def write_index_rows(
    path: Path, rows: Iterable[NDArray[np.uint8]], size: tuple[int, int], palette: NDArray[np.uint8] | None
) -> None:
    """`write_index` of ids that come in parts uint8 (any height, W) from top to bottom, of a picture that no memory holds.

    size: (H, W).
    """

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    def write(partial: Path) -> None:
        packer = zlib.compressobj(6)
        with partial.open("wb") as file:
            color_type = 0 if palette is None else 3
            file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", size[1], size[0], 8, color_type, 0, 0, 0)))
            if palette is not None:
                file.write(chunk(b"PLTE", palette.tobytes()))
            for part in rows:
                # Each row begins with the number of its filter; 0 is none.
                lines = np.zeros((len(part), size[1] + 1), np.uint8)
                lines[:, 1:] = part
                if packed := packer.compress(lines.tobytes()):
                    file.write(chunk(b"IDAT", packed))
            file.write(chunk(b"IDAT", packer.flush()) + chunk(b"IEND", b""))

    write_whole(path, write)


def class_colors(count: int) -> NDArray[np.uint8]:
    """A palette uint8 (256, 3) for `count` classes whose dataset is not known: twelve hues in three shades, then again."""
    palette = np.zeros((256, 3), np.uint8)
    for index in range(count):
        hue, shade = index * 7 % 12 / 12, (1.0, 0.7, 0.45)[index // 12 % 3]
        wheel = [abs((hue * 6 + offset) % 6 - 3) - 1 for offset in (0, 4, 2)]
        palette[index] = [round(255 * shade * min(1.0, max(0.0, value))) for value in wheel]
    return palette


def overlay(image: RGB, ids: NDArray[np.uint8], palette: NDArray[np.uint8]) -> RGB:
    """The image uint8 (H, W, 3), half covered by the colours palette uint8 (256, 3) of its ids uint8 (H, W)."""
    colors = cv2.LUT(cv2.merge([ids, ids, ids]), palette[None])
    # NumPy's floating point takes nine times as long, which counts in videos.
    return np.asarray(cv2.addWeighted(image, 1 - OPACITY, colors, OPACITY, 0), np.uint8)
