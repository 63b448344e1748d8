"""Picture files to arrays, with PIL and never a conversion: an image is RGB, a label holds class ids as they are.

PIL and not OpenCV, because OpenCV 5 returns three channels for palette PNGs and squashes 16-bit ones.
"""

import hashlib
import io
from dataclasses import dataclass

import numpy as np
import PIL
from PIL import ExifTags, Image, UnidentifiedImageError

from segctl.data.files.entries import File, UnreadableError
from segctl.errors import InputError

DECODER = f"pillow {PIL.__version__}"
HEAD_BYTES = 2**16
"""Enough of nearly every file to know its size; where it is not, the whole file is read."""

_MODE_WORDS = {
    "1": "black and white",
    "L": "8-bit grey",
    "LA": "grey with transparency",
    "P": "a palette picture",
    "RGB": "RGB",
    "RGBA": "RGB with transparency",
    "CMYK": "CMYK",
    "I": "more than 8 bits deep",
    "I;16": "16 bits deep",
    "F": "floating point",
}
_ADVICE = {
    "image": "convert the picture, or leave the sample out of the source",
    "label": "save the label as a one-channel 8-bit PNG of class ids",
    "mask": "save the mask as an 8-bit RGB PNG in the colours of the class table",
    "instance map": "use the 16-bit PNG as it was published",
}


@dataclass(frozen=True)
class Decoded:
    """`array` is uint8 (H, W, 3) of an image, uint8 (H, W) of a label; `content` is the file, `sha256` its hash."""

    array: np.ndarray
    sha256: str
    content: bytes


@dataclass(frozen=True)
class Picture:
    """A picture file of one sample. `role` is "image", "label" (an index map), "mask" (class colours) or "instance map"."""

    sample: str
    role: str
    file: File
    modes: tuple[str, ...]
    """The PIL modes the file may have: RGB for images and masks, L or P for labels, I;16 for instance maps."""

    def __str__(self) -> str:
        return f"the {self.role} of sample '{self.sample}' ({self.file.where})"

    def size(self) -> tuple[int, int]:
        """(H, W) from the file's header, its mode checked on the way."""
        opened = self._open(self._content(HEAD_BYTES))
        return opened.height, opened.width

    def decode(self) -> Decoded:
        """The whole picture, its file read once."""
        content = self._content()
        opened = self._open(content)
        try:
            array = np.array(opened)
        except (OSError, SyntaxError, ValueError) as error:
            raise self._unreadable(error) from error
        wanted = np.uint16 if "I;16" in self.modes else np.uint8
        return Decoded(array.astype(wanted, copy=False), hashlib.sha256(content).hexdigest(), content)

    def digest(self) -> str:
        """The `sha256` that `decode` would give."""
        return hashlib.sha256(self._content()).hexdigest()

    def _content(self, limit: int | None = None) -> bytes:
        try:
            return self.file.read(limit)
        except (OSError, UnreadableError) as error:
            raise self._unreadable(error) from error

    def _open(self, content: bytes) -> Image.Image:
        """The picture with its header read and judged, its pixels not yet."""
        try:
            opened = Image.open(io.BytesIO(content))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            if len(content) == HEAD_BYTES:
                return self._open(self._content())
            raise self._unreadable(error) from error
        self._check_mode(opened, content)
        self._check_upright(opened)
        return opened

    def _check_mode(self, opened: Image.Image, content: bytes) -> None:
        mode = "I;16" if opened.mode.startswith("I;16") else opened.mode
        depth = content[24] if content.startswith(b"\x89PNG") else 8
        scaled = (mode == "L" and depth < 8 and self.role != "image") or (mode == "RGB" and depth > 8)  # PIL changes the values
        if mode in self.modes and not scaled:
            return
        got = f"{depth}-bit {'grey' if mode == 'L' else 'RGB'}" if scaled else _MODE_WORDS.get(mode, f"of mode {mode}")
        words = " or ".join(_MODE_WORDS[mode] for mode in self.modes)
        wanted = f"an index map ({words}, each value a class id)" if self.role == "label" else words
        raise InputError(f"{self} is {got}, wanted {wanted}", _ADVICE[self.role])

    def _check_upright(self, opened: Image.Image) -> None:
        """A label has no such mark, so that nobody can know whether it was drawn on the picture turned or unturned."""
        if "exif" not in opened.info:
            return
        exif = Image.Exif()
        exif.load(opened.info["exif"])
        if (orientation := exif.get(ExifTags.Base.Orientation, 1)) != 1:
            raise InputError(
                f"{self} is stored turned or mirrored (EXIF orientation {orientation})",
                "save it upright, then see with `segctl data preview` that its label fits",
            )

    def _unreadable(self, error: Exception) -> InputError:
        return InputError(f"{self} cannot be read: {_reason(error)}", "copy the file again from where it came")


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is not a picture"
    if isinstance(error, UnreadableError):
        return str(error)
    if isinstance(error, Image.DecompressionBombError):
        return f"it is larger than {2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6} million pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return "it is cut short" if "truncated" in str(error).lower() else f"it is damaged ({error})"
