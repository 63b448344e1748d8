"""Picture files to arrays, with PIL and never a conversion: an image is RGB, a label holds class ids as they are.

PIL and not OpenCV, because OpenCV 5 returns three channels for palette PNGs and squashes 16-bit ones.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError

from segctl.errors import InputError

DECODER = f"pillow {PIL.__version__}"

_MODE_WORDS = {
    "1": "black and white",
    "L": "8-bit grey",
    "LA": "grey with transparency",
    "P": "a palette picture",
    "RGB": "RGB",
    "RGBA": "RGB with transparency",
    "CMYK": "CMYK",
    "I": "more than 8 bits deep",
    "F": "floating point",
}


@dataclass(frozen=True)
class Picture:
    """A picture file of one sample. `role` is "image" or "label"; `where` is the path that people are shown."""

    sample: str
    role: str
    path: Path
    where: str
    mode: str
    """The PIL mode the file must have: RGB for images, L or P for labels."""

    def __str__(self) -> str:
        return f"the {self.role} of sample '{self.sample}' ({self.where})"

    def size(self) -> tuple[int, int]:
        """(H, W) from the file's header, its mode checked on the way."""
        try:
            with Image.open(self.path) as opened:
                self._check_mode(opened.mode)
                return opened.height, opened.width
        except (OSError, SyntaxError, ValueError) as error:
            raise self._unreadable(error) from error

    def decode(self) -> np.ndarray:
        """uint8 (H, W, 3) of an image, uint8 (H, W) of a label."""
        try:
            with Image.open(self.path) as opened:
                self._check_mode(opened.mode)
                opened.load()
                return np.array(opened, np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            raise self._unreadable(error) from error

    def _check_mode(self, mode: str) -> None:
        if mode == self.mode:
            return
        got = "16 bits deep" if mode.startswith("I;16") else _MODE_WORDS.get(mode, f"of mode {mode}")
        if self.role == "image":
            raise InputError(f"{self} is {got}, wanted RGB", "convert the picture, or leave the sample out of the source")
        raise InputError(
            f"{self} is {got}, wanted an index map ({_MODE_WORDS[self.mode]}, each value a class id)",
            "save the label as a one-channel 8-bit PNG of class ids",
        )

    def _unreadable(self, error: Exception) -> InputError:
        reason = "it is no picture" if isinstance(error, UnidentifiedImageError) else str(error).rstrip(".")
        return InputError(f"{self} cannot be read: {reason}", "copy the file again from where it came")
