"""Picture files to arrays, with PIL and never a conversion: an image is RGB, a label holds class ids as they are.

PIL and not OpenCV, because OpenCV 5 returns three channels for palette PNGs and squashes 16-bit ones.
"""

import hashlib
import io
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
class Decoded:
    """`array` is uint8 (H, W, 3) of an image, uint8 (H, W) of a label; `content` is the file, `sha256` its hash."""

    array: np.ndarray
    sha256: str
    content: bytes


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

    def decode(self) -> Decoded:
        """The whole picture, its file read once."""
        try:
            content = self.path.read_bytes()
            with Image.open(io.BytesIO(content)) as opened:
                self._check_mode(opened.mode)
                array = np.array(opened, np.uint8)
        except (OSError, SyntaxError, ValueError) as error:
            raise self._unreadable(error) from error
        return Decoded(array, hashlib.sha256(content).hexdigest(), content)

    def digest(self) -> str:
        """The `sha256` that `decode` would give."""
        try:
            with self.path.open("rb") as handle:
                return hashlib.file_digest(handle, "sha256").hexdigest()
        except OSError as error:
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
        return InputError(f"{self} cannot be read: {_reason(error)}", "copy the file again from where it came")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not a picture"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "it is cut short" if "truncated" in str(error).lower() else f"it is damaged ({error})"
