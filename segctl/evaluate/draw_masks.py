"""Class maps as pictures: index PNGs that also show their classes' colours, and overlays on the image. Needs no torch."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segctl.files import write_whole

Pixels = NDArray[np.uint8]
OPACITY = 0.5


def write_picture(path: Path, picture: Pixels) -> None:
    """An RGB uint8 (H, W, 3) picture as PNG, whole."""
    write_whole(path, lambda partial: Image.fromarray(picture).save(partial, format="PNG"))


def write_index(path: Path, ids: Pixels, palette: Pixels | None = None) -> None:
    """Ids uint8 (H, W) as a one-channel PNG, whole. With a palette uint8 (256, 3) viewers show colours; readers find ids."""
    picture = Image.fromarray(ids)
    if palette is not None:
        picture.putpalette(palette.tobytes())  # turns the mode into P and leaves the values
    write_whole(path, lambda partial: picture.save(partial, format="PNG"))


def overlay(image: Pixels, ids: Pixels, palette: Pixels) -> Pixels:
    """The image uint8 (H, W, 3), its classes' colours laid over it."""
    mixed = (1 - OPACITY) * image + OPACITY * palette[ids]
    return mixed.round().astype(np.uint8)
