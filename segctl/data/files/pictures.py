"""The one reader of picture files: every picture that segctl did not draw itself is opened, judged and decoded here.

PIL and not OpenCV, because OpenCV 5 returns three channels for palette PNGs and squashes 16-bit ones. What a file is follows
from its content alone (`_open`), never from its name. A label's values are class ids, so nothing converts them.
"""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from segctl.data.files.archives import File, UnreadableError
from segctl.errors import InputError

DECODER = f"pillow {PIL.__version__}"
HEAD_BYTES = 2**16
"""Enough of nearly every file to know its size; the whole file is read if it is not."""
IMAGE_MODES = ("RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr")
"""What `read_image` converts to RGB without loss of depth."""
LABEL_MODES = ("1", "L", "P", "I;16", "I")
"""What `read_label` takes for ids."""

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
_UNREADABLE = (OSError, UnreadableError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What reading a file and PIL raise for a file that is missing, damaged or no picture."""


@dataclass(frozen=True)
class _Opened:
    """A picture whose header was read and whose pixels were not.

    mode: PIL's, "I;16" for every byte order.  depth: bits of a channel in the file.
    """

    image: Image.Image
    mode: str
    depth: int

    def orientation(self) -> int:
        """EXIF's number, 1 to 8; 1 is upright, and what a file without EXIF has."""
        if "exif" not in self.image.info:  # `getexif` would decode the whole picture to look for it
            return 1
        exif = Image.Exif()
        exif.load(self.image.info["exif"])
        return int(exif.get(ExifTags.Base.Orientation, 1))

    def pixels(self) -> np.ndarray:
        """The values in the file: (H, W) or (H, W, channels), in PIL's dtype for the mode."""
        return np.array(self.image)


def _open(content: bytes | memoryview) -> _Opened:
    """Decide by a file's content, or by its first bytes, what it is. Raises one of `_UNREADABLE`."""
    image = Image.open(io.BytesIO(content))
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    # PIL scales grey of 1 to 7 bits to 0..255 and cuts 16-bit RGB to 8: only a PNG's header tells (byte 24 of the file).
    depth = content[24] if image.format == "PNG" else 16 if mode == "I;16" else 8
    return _Opened(image, mode, depth)


def read_image(file: File) -> NDArray[np.uint8]:
    """A person's picture as RGB uint8 (H, W, 3), turned upright as its EXIF orientation says.

    Raises InputError that names the file if it cannot be read or is deeper than 8 bits a channel.
    """
    with _named(file):
        opened = _open(file.read())
        if opened.mode not in IMAGE_MODES:
            raise InputError(
                f"'{file.where}' is a picture of mode {opened.mode}, wanted 8-bit colour or grey", "convert it first"
            )
        return np.array(ImageOps.exif_transpose(opened.image).convert("RGB"))


def read_label(file: File) -> NDArray[np.integer]:
    """The ids in a one-channel picture, uint8 or uint16 (H, W), as they are in the file.

    Raises InputError that names the file if it cannot be read or has several channels.
    """
    with _named(file):
        opened = _open(file.read())
        if opened.mode not in LABEL_MODES:
            raise InputError(
                f"'{file.where}' is a picture of mode {opened.mode}, wanted one channel of class ids (grey or palette)",
                "save class ids, not colours",
            )
        ids = opened.pixels()
    if ids.dtype == np.bool_:
        return ids.astype(np.uint8)
    return ids.astype(np.uint16) if ids.dtype.itemsize > 1 else ids  # PIL gives 16-bit PNGs as 32-bit integers at times


def decode(content: bytes | memoryview) -> np.ndarray:
    """The values in a picture file that segctl packed or made itself: uint8 (H, W) or (H, W, 3). Raises what PIL raises."""
    return _open(content).pixels()


@contextmanager
def _named(file: File) -> Iterator[None]:
    """Turn the errors about an unreadable file into one sentence that names it."""
    try:
        yield
    except _UNREADABLE as error:
        raise InputError(f"cannot read '{file.where}': {_reason(error)}") from error


@dataclass(frozen=True)
class Decoded:
    """A decoded picture: `array` is uint8 (H, W, 3), uint8 (H, W), or uint16 (H, W) of an instance map.

    `content` is the file's bytes, `sha256` their hash.
    """

    array: np.ndarray
    sha256: str
    content: bytes


@dataclass(frozen=True)
class Picture:
    """A picture file of one sample of a dataset, which must be exactly what the dataset promises.

    role: "image", "label" (an index map), "mask" (class colours) or "instance map".
    modes: the PIL modes the file may have: RGB for images and masks, L or P for labels, I;16 for instance maps.
    """

    sample: str
    role: str
    file: File
    modes: tuple[str, ...]

    def __str__(self) -> str:
        return f"the {self.role} of sample '{self.sample}' ({self.file.where})"

    def size(self) -> tuple[int, int]:
        """(H, W) from the file's header. Raises InputError if the file is not what it must be."""
        image = self._open(self._content(HEAD_BYTES)).image
        return image.height, image.width

    def decode(self) -> Decoded:
        """The whole picture, its file read once. Raises InputError that names sample and file."""
        content = self._content()
        opened = self._open(content)
        try:
            array = opened.pixels()
        except _UNREADABLE as error:
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

    def _open(self, content: bytes) -> _Opened:
        """The opened picture, its mode and orientation judged."""
        try:
            opened = _open(content)
        except _UNREADABLE as error:
            if len(content) == HEAD_BYTES:
                # The header is longer than what was read, for example because of a large colour profile.
                return self._open(self._content())
            raise self._unreadable(error) from error
        self._check_mode(opened)
        if (orientation := opened.orientation()) != 1:
            # A label carries no such mark, so nobody can know whether it was drawn on the picture turned or unturned.
            raise InputError(
                f"{self} is stored turned or mirrored (EXIF orientation {orientation})",
                "save it upright, then see with `segctl data preview` that its label fits",
            )
        return opened

    def _check_mode(self, opened: _Opened) -> None:
        mode, depth = opened.mode, opened.depth
        changed = (mode == "L" and depth < 8 and self.role != "image") or (mode == "RGB" and depth > 8)  # PIL changes the values
        if mode in self.modes and not changed:
            return
        got = f"{depth}-bit {'grey' if mode == 'L' else 'RGB'}" if changed else _MODE_WORDS.get(mode, f"of mode {mode}")
        words = " or ".join(_MODE_WORDS[mode] for mode in self.modes)
        wanted = f"an index map ({words}, each value a class id)" if self.role == "label" else words
        raise InputError(f"{self} is {got}, wanted {wanted}", _ADVICE[self.role])

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
