"""The one reader of picture files: every picture that segctl did not draw itself is opened, judged and decoded here.

PIL and not OpenCV, because OpenCV 5 returns three channels for palette PNGs and squashes 16-bit ones. What a file is follows
from its content alone (`open_picture`), never from its name. A label's values are class ids, so nothing converts them. PIL hides
some of what a file holds (it scales shallow grey, halves deep RGB, shows the first page of many, turns TIFFs), so the headers of
PNG, TIFF and PPM are read here as well. What is deeper than 8-bit RGB is read by bands.py, if a person asks for it.
"""

import hashlib
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import PIL
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from segctl.data.files.archives import File, SpecialFileError, UnreadableError
from segctl.errors import InputError, SegctlError, first_line

# PIL warns above 89 million pixels and about every malformed EXIF block. The cases that matter raise errors in this file.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
warnings.filterwarnings("ignore", module=r"PIL\.")

DECODER = f"pillow {PIL.__version__}"
HEAD_BYTES = 2**16
"""Enough of nearly every file to know its size; the whole file is read if it is not."""
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
"""PIL's names of the formats that are read. Its other readers start programs (EPS) or hide a picture's depth."""
IMAGE_MODES = ("RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr")
"""What `read_image` converts to RGB without loss of depth."""
LABEL_MODES = ("1", "L", "P", "I;16", "I")
"""What `read_label` takes for ids."""
TEXT_BYTES = 2**22
"""No PNG text that says how a picture is turned is longer than this unpacked."""

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
_OPAQUE = {"RGBA": "RGB", "LA": "L"}
"""The mode of a picture whose transparency is used nowhere."""
_ADVICE = {
    "image": "convert the picture, or leave the sample out of the source",
    "label": "save the label as a one-channel 8-bit PNG of class ids",
    "mask": "save the mask as an 8-bit RGB PNG in the colours of the class table",
    "instance map": "use the PNG as it was published: 8-bit or 16-bit numbers, or COCO's RGB",
}
_DEEP = "convert it, or choose and scale its bands: your own images take --bands 3,2,1 and --range percentile or keep"
_TOO_LARGE = "`segctl data prepare --tile 1024` cuts it into tiles; `segctl predict --protocol sliding` reads it in parts"
_COPY_AGAIN = "copy the file again from where it came"
_XMP_ORIENTATION = re.compile(rb"tiff:Orientation\s*(?:=\s*[\"']|>)\s*([0-9])")
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _COMPRESSION, _PHOTOMETRIC, ORIENTATION, _SAMPLES, _EXTRA, _SUBFILE = 258, 259, 262, 274, 277, 338, 254
"""Numbers of the TIFF tags that are read here."""


BLACK_AND_WHITE = np.array([[0, 0, 0], [255, 255, 255]], np.uint8)
"""The colours of the values of a 1-bit picture."""


class UnfitError(Exception):
    """A readable file that cannot be used: what it is, in words that follow its name, and what to do about it."""

    def __init__(self, problem: str, hint: str) -> None:
        super().__init__(problem)
        self.problem, self.hint = problem, hint


@dataclass(frozen=True)
class Opened:
    """A picture whose header was read and whose pixels were not.

    mode: PIL's, "I;16" for every byte order.  depth: bits of a channel in the file.  levels: the value that the file stores for
    white; PIL scales it to 255.  frames: pages of a TIFF, frames of an animation.  orientation: EXIF's number, 1 is upright.
    lossy: why the values are not exact, or empty.  inverted: whether the file stores 0 for white, which PIL inverts.
    """

    image: Image.Image
    mode: str
    depth: int
    levels: int
    frames: int
    orientation: int
    lossy: str
    inverted: bool

    def pixels(self) -> np.ndarray:
        """The values in the file: uint8 (H, W) or (H, W, channels), bool (H, W) of a 1-bit picture, or wider integers (H, W)."""
        return np.array(self.image)

    def ids(self) -> np.ndarray:
        """The values in a one-channel file as the file stores them: uint8 (H, W), or wider integers."""
        values = self.pixels()
        if values.dtype == np.bool_:
            return values.astype(np.uint8)
        if self.mode == "L" and self.levels != 255:
            return ((values.astype(np.uint16) * self.levels + 127) // 255).astype(np.uint8)
        return values

    def palette(self) -> NDArray[np.uint8] | None:
        """uint8 (256, 3): the colours of a palette picture, black for entries that the file leaves out; None for any other."""
        if self.mode != "P":
            return None
        colors = np.zeros((256, 3), np.uint8)
        listed = np.array(self.image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)[:256]
        colors[: len(listed)] = listed
        return colors

    def only_one(self) -> None:
        """Raise UnfitError for a file of several pages or frames."""
        if self.frames > 1:
            what = "pages" if self.image.format == "TIFF" else "frames"
            raise UnfitError(f"holds {self.frames} {what}, wanted one", f"save each of the {what} as a file of its own")

    def exact(self) -> None:
        """Raise UnfitError for a file whose values are not those that were saved, so that they are not ids or class colours."""
        self.only_one()
        if self.lossy:
            raise UnfitError(f"is {self.lossy}, whose values are not exact", "save the labels as PNG from where they were drawn")
        if self.inverted:
            raise UnfitError("stores 0 for white, so its values can be read in two ways", "save the label as an 8-bit PNG")


def open_picture(content: bytes | memoryview, *, whole: bool = True) -> Opened:
    """Decide by a file's content, or by its first bytes if not `whole`, what it is. Raises anything, as PIL does."""
    content = bytes(content)
    pages = tiff_pages(content) if content.startswith(TIFF_STARTS) else []
    if pages:
        _judge_bands(pages[0])
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    mode = "I;16" if image.mode.startswith("I;16") else image.mode
    depth, levels = 16 if mode == "I;16" else 8, 255
    lossy, inverted, frames = "", False, 1
    match image.format:
        case "PNG":
            depth = content[24]
            levels = 2**depth - 1 if depth < 8 else 255
            frames = getattr(image, "n_frames", 1)
        case "TIFF":
            bits = pages[0].get(_BITS, (1,))
            depth = max(bits)
            levels = 2**depth - 1 if depth < 8 else 255
            inverted = pages[0].get(_PHOTOMETRIC) == 0
            lossy = "a TIFF of JPEG pixels" if pages[0].get(_COMPRESSION) in (6, 7) else ""
            frames = len(pages)
        case "PPM" if found := re.match(
            rb"P[2356]\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*\d+\s+(?:#[^\n]*\n\s*)*(\d+)", content
        ):
            levels = int(found[1])
            depth = max(8, levels.bit_length())
        case "JPEG" | "MPO":  # the further frames of an MPO are previews that phones add
            lossy = "a JPEG"
        case "WEBP":
            lossy = "" if b"VP8L" in content[:HEAD_BYTES] else "a lossy WebP"
            frames = getattr(image, "n_frames", 1)
        case "GIF" if whole:  # counting them reads the file to its end
            frames = getattr(image, "n_frames", 1)
    orientation = _orientation(image, content, pages)
    return Opened(image, mode, depth, levels, frames, orientation, lossy, inverted)


def tiff_pages(content: bytes) -> list[TiffImagePlugin.ImageFileDirectory_v2]:
    """The directory of each page of a TIFF, without the small copies and masks that a page may bring along."""
    stream = io.BytesIO(content)
    found: list[TiffImagePlugin.ImageFileDirectory_v2] = []
    header = stream.read(16 if content[2:4] in (b"+\0", b"\0+") else 8)
    place, seen = TiffImagePlugin.ImageFileDirectory_v2(header).next, set()
    while place and place not in seen:
        seen.add(place)
        directory = TiffImagePlugin.ImageFileDirectory_v2(header)
        stream.seek(place)
        directory.load(stream)
        if not found or not directory.get(_SUBFILE, 0) & 5:
            found.append(directory)
        place = directory.next
    return found


def _judge_bands(page: TiffImagePlugin.ImageFileDirectory_v2) -> None:
    """Raise UnfitError for bands that are neither grey, RGB nor CMYK, before PIL says that the file is not a picture."""
    samples, extra = int(page.get(_SAMPLES, 1)), page.get(_EXTRA, ())
    known = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3}.get(int(page.get(_PHOTOMETRIC, -1)), samples)
    alpha = samples == known + 1 and extra and extra[0] in (1, 2)
    if samples != known and not alpha:
        raise UnfitError(f"has {samples} bands, wanted 3 (RGB) or 1 (grey)", _DEEP)


def _orientation(image: Image.Image, content: bytes, pages: list[TiffImagePlugin.ImageFileDirectory_v2]) -> int:
    """How a picture is turned, 1 to 8, from EXIF, a TIFF's tag or XMP, wherever the format keeps them; 1 if nothing says so.

    `Image.getexif` would decode a whole PNG to look for it. Raises UnreadableError for a damaged EXIF block.
    """
    blocks, xmp = [image.info.get("exif", b"")], [image.info.get("xmp", b"")]
    if image.format == "PNG":
        for keyword, text in _png_texts(content):
            if keyword in (b"Raw profile type exif", b"Raw profile type APP1"):
                profile = _raw_profile(text)
                (blocks if profile.startswith((b"Exif\0\0", b"II", b"MM")) else xmp).append(profile)
            elif keyword == b"XML:com.adobe.xmp":
                xmp.append(text)
            elif keyword == b"eXIf":
                blocks.append(text)
    found = [turned for block in blocks if block and (turned := _exif_orientation(bytes(block))) is not None]
    if pages and ORIENTATION in pages[0]:
        found.append(pages[0][ORIENTATION])
    if pages and isinstance(packet := pages[0].get(700), bytes):
        xmp.append(packet)
    for packet in xmp:
        raw = packet.encode("utf-8", "replace") if isinstance(packet, str) else bytes(packet or b"")
        found += [int(match[1]) for match in [_XMP_ORIENTATION.search(raw)] if match]
    # Some cameras write 0 for "unknown"; such numbers mean upright.
    return next((number for number in found if number in range(2, 9)), 1)


def _exif_orientation(block: bytes) -> int | None:
    """The orientation that an EXIF block names; None if it names none. Raises UnreadableError for a damaged block."""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    if not block:
        return None
    try:
        order = {b"II*\0": "<", b"MM\0*": ">"}[block[:4]]
        (place,) = struct.unpack_from(f"{order}I", block, 4)
        (count,) = struct.unpack_from(f"{order}H", block, place)
        for start in range(place + 2, place + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(f"{order}HH", block, start)
            if tag == ORIENTATION:
                value: int = struct.unpack_from(order + {1: "B", 3: "H", 4: "I"}[kind], block, start + 8)[0]
                return value
    except (KeyError, struct.error) as error:
        raise UnreadableError("its EXIF block is damaged, so nothing says whether it is stored turned") from error
    return None


def _png_texts(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(keyword, text) of each text chunk of a PNG, and (eXIf, content) of its EXIF chunk, before and after the pixels."""
    place = 8
    while place + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, place)
        chunk = content[place + 8 : place + 8 + length]
        place += 12 + length
        keyword, _, text = chunk.partition(b"\0")
        match kind:
            case b"eXIf":
                yield kind, chunk
            case b"tEXt":
                yield keyword, text
            case b"zTXt":
                yield keyword, _inflate(text[1:])
            case b"iTXt":
                packed, body = text[:1] == b"\1", text[2:].split(b"\0", 2)[-1]
                yield keyword, _inflate(body) if packed else body


def _inflate(packed: bytes) -> bytes:
    try:
        return zlib.decompressobj().decompress(packed, TEXT_BYTES)
    except zlib.error as error:
        raise UnreadableError("a text chunk of it is damaged") from error


def _raw_profile(text: bytes) -> bytes:
    """The bytes that ImageMagick and exiftool write as hexadecimal digits after a name and a length, a line each."""
    try:
        return bytes.fromhex("".join(text.decode("ascii").strip("\n").split("\n")[2:]))
    except ValueError as error:
        raise UnreadableError("its EXIF block is damaged, so nothing says whether it is stored turned") from error


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture of each EXIF orientation upright."""


def read_image(file: File) -> NDArray[np.uint8]:
    """A person's picture as RGB uint8 (H, W, 3), turned upright as its EXIF orientation says.

    Raises InputError that names the file if it cannot be read, is deeper than 8 bits a channel or holds several pictures.
    """
    with named(file):
        opened = open_picture(file.read())
        opened.only_one()
        if opened.mode not in IMAGE_MODES or opened.depth > 8:
            got = f"{opened.depth}-bit RGB" if opened.mode in IMAGE_MODES else _words_of(opened.mode)
            raise UnfitError(f"is {got}, wanted 8-bit colour or grey", _DEEP)
        opened.image.load()
        # PIL turns a TIFF upright while it loads it, and nothing else.
        if opened.orientation != 1 and opened.image.format != "TIFF":
            return np.array(opened.image.transpose(_TURNS[opened.orientation]).convert("RGB"))
        return np.array(opened.image.convert("RGB"))


def read_label(file: File) -> NDArray[np.integer]:
    """The ids in a one-channel picture, uint8 or uint16 (H, W), as they are in the file.

    Raises InputError that names the file if it cannot be read, has several channels or pages, is lossy or stored turned.
    """
    return read_label_and_colors(file)[0]


def read_label_and_colors(file: File, too_large: str = _TOO_LARGE) -> tuple[NDArray[np.integer], NDArray[np.uint8] | None]:
    """`read_label`, and the colours of its values: uint8 (n, 3) of a palette or of black and white, None for grey.

    too_large: what to do about a picture of too many pixels.
    """
    with named(file, too_large):
        opened = open_picture(file.read())
        if opened.mode not in LABEL_MODES:
            raise UnfitError(
                f"is {_words_of(opened.mode)}, wanted one channel of class ids (grey or palette)",
                "save class ids, not colours",
            )
        opened.exact()
        require_upright(opened)
        ids = opened.ids()
        if ids.dtype.itemsize == 1:
            return ids, BLACK_AND_WHITE if opened.mode == "1" else opened.palette()
        if ids.min() < 0 or ids.max() > np.iinfo(np.uint16).max:
            raise UnfitError(f"holds the value {ids.min() if ids.min() < 0 else ids.max()}, wanted 0 to 65535", "save class ids")
        return ids.astype(np.uint16), None  # PIL gives 16-bit PNGs as 32-bit integers at times


def read_instance_ids(file: File) -> NDArray[np.integer]:
    """The numbers in an instance map, uint8 or uint16 (H, W), or uint8 (H, W, 3) of an RGB map (COCO panoptic).

    Raises InputError that names the file if it cannot be read, has pages, is lossy or stored turned.
    """
    with named(file):
        opened = open_picture(file.read())
        if opened.mode != "RGB":
            return read_label(file)
        if opened.depth > 8:
            raise UnfitError(f"is {opened.depth}-bit RGB, wanted 8-bit RGB or 16-bit grey", _ADVICE["instance map"])
        opened.exact()
        require_upright(opened)
        return opened.ids()


def _words_of(mode: str) -> str:
    return _MODE_WORDS.get(mode, f"a picture of mode {mode}")


def _deep_words(mode: str, depth: int) -> str:
    """What a picture of this many bits per channel is called; PIL reads signed and 32-bit integers as mode "I"."""
    kinds = {"L": f"{depth}-bit grey", "I": f"grey of signed or {depth}-bit integers", "F": "floating-point grey"}
    return kinds.get(mode, f"{depth}-bit RGB")


def require_upright(opened: Opened) -> None:
    if opened.orientation != 1:
        refuse_turned(opened.orientation)


def refuse_turned(orientation: int) -> NoReturn:
    """Raise UnfitError: it cannot be known whether a label was drawn on the turned or the stored picture."""
    raise UnfitError(
        f"is stored turned or mirrored (EXIF orientation {orientation})",
        "save it upright, then see with `segctl data preview` that its label fits",
    )


def turn_upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """A picture uint8 (H, W, 3) or (H, W) that is stored as EXIF's orientation 2 to 8 says -> the same, upright."""
    return np.array(Image.fromarray(array).transpose(_TURNS[orientation]))


def decode(content: bytes | memoryview) -> np.ndarray:
    """The values in a picture file that segctl packed or made itself: uint8 (H, W) or (H, W, 3). Raises what PIL raises."""
    return np.array(Image.open(io.BytesIO(content)))


def decode_png(content: bytes, longest: int, most: int) -> np.ndarray:
    """The values in a PNG that another file holds, bool or uint8 (H, W) or uint8 (H, W, channels), as the PNG stores them.

    longest, most: pixels of a side and of the whole.  Raises UnfitError for a larger one, and what PIL raises for a damaged one.
    """
    image = Image.open(io.BytesIO(content), formats=["PNG"])
    if max(image.size) > longest or image.width * image.height > most:
        raise UnfitError(f"is {image.width}×{image.height} pixels, larger than any picture", _COPY_AGAIN)
    return np.array(image)


@contextmanager
def named(file: File, too_large: str = _TOO_LARGE) -> Iterator[None]:
    """Turn the errors about an unreadable or unfit file into one sentence that names it."""
    with in_words(f"'{file.where}'", f"cannot read '{file.where}'", too_large):
        yield


@contextmanager
def in_words(name: str, unreadable: str, too_large: str = _TOO_LARGE) -> Iterator[None]:
    """Turn whatever reading a file raises into an InputError; `unreadable` begins the sentence for a file that is damaged.

    too_large: what to do about a picture of too many pixels.

    PIL raises nearly anything for damaged files (SyntaxError, struct.error, RuntimeError), so no list of its errors is complete.
    """
    try:
        yield
    except (SegctlError, MemoryError):
        raise
    except UnfitError as error:
        raise InputError(f"{name} {error.problem}", error.hint) from error
    except Image.DecompressionBombError as error:
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise InputError(f"{name} is larger than {most} million pixels", too_large) from error
    except Exception as error:
        reason, hint = _reason(error)
        raise InputError(f"{unreadable}: {reason}", hint) from error


def _reason(error: Exception) -> tuple[str, str]:
    """What is wrong with a file that cannot be read, and what to do."""
    match error:
        case UnidentifiedImageError():
            return "it is not a picture", f"give a {', '.join(FORMATS[:-1])} or {FORMATS[-1]} file"
        case SpecialFileError():
            return str(error), "replace it by a plain file"
        case UnreadableError():
            exif = "EXIF" in str(error)
            return str(error), "save the picture again without its EXIF (`exiftool -all= FILE`)" if exif else _COPY_AGAIN
        case OSError() if error.strerror:
            return error.strerror, _COPY_AGAIN
    cut = "truncated" in str(error).lower() or isinstance(error, EOFError | IndexError)
    return "it is cut short" if cut else f"it is damaged ({first_line(error)})", _COPY_AGAIN


@dataclass(frozen=True)
class Decoded:
    """A decoded picture: `array` is uint8 (H, W, 3), uint8 (H, W), or uint16 (H, W) of a 16-bit instance map.

    `content` is the file's bytes, `sha256` their hash. mode: PIL's.  levels: the value that the file stores for white.
    palette: uint8 (256, 3) of a palette picture, else None.  orientation: EXIF's number, 1 is upright.  label_turn: that of the
    label that was drawn on this picture.  remark: an oddity of it, in words that can be counted.
    """

    array: np.ndarray
    sha256: str
    content: bytes
    mode: str
    levels: int = 255
    palette: np.ndarray | None = None
    orientation: int = 1
    label_turn: int = 1
    remark: str = ""

    def colors(self) -> NDArray[np.uint8]:
        """uint8 (H, W, 3): the colours that a person sees. Grey v is the colour (v, v, v)."""
        if self.palette is not None:
            return np.asarray(self.palette[self.array])
        if self.array.ndim == 3:
            return self.array
        grey = self.array if self.levels == 255 else (self.array.astype(np.uint16) * 255 // self.levels).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)


@dataclass(frozen=True)
class Picture:
    """A picture file of one sample of a dataset, which must be exactly what the dataset promises.

    role: "image", "label" (an index map), "mask" (class colours) or "instance map".
    modes: the PIL modes the file may have: RGB for images and masks, L or P for labels, I;16 for instance maps.
    upright: whether a file that is stored turned is refused; a TIFF always is, because PIL turns it by itself.
    """

    sample: str
    role: str
    file: File
    modes: tuple[str, ...]
    upright: bool = True

    def __str__(self) -> str:
        return f"the {self.role} of sample '{self.sample}' ({self.file.where})"

    def size(self) -> tuple[int, int]:
        """(H, W) from the file's header. Raises InputError if the file is not what it must be."""
        return self.size_and_orientation()[0]

    def size_and_orientation(self) -> tuple[tuple[int, int], int]:
        """(H, W) as stored, and EXIF's number, from the file's header. Raises InputError if the file is not what it must be."""
        with in_words(str(self), f"{self} cannot be read"):
            head = self.file.read(HEAD_BYTES)
            try:
                opened = self._open(head, whole=len(head) < HEAD_BYTES)
            except Exception:
                if len(head) < HEAD_BYTES:
                    raise
                # The header is longer than what was read, for example because of a large colour profile.
                opened = self._open(self.file.read())
            return (opened.image.height, opened.image.width), opened.orientation

    def decode(self) -> Decoded:
        """The whole picture, its file read once. Raises InputError that names sample and file."""
        with in_words(str(self), f"{self} cannot be read"):
            content = self.file.read()
            opened = self._open(content)
            # Grey of few levels is a brightness in an image and an id in a label.
            array, mode = opened.pixels() if self.role == "image" else opened.ids(), opened.mode
            if mode not in self.modes:
                array, mode = self._opaque(array), _OPAQUE[mode]
            wanted = np.uint16 if mode == "I;16" else np.uint8
            return Decoded(
                array=array.astype(wanted, copy=False),
                sha256=hashlib.sha256(content).hexdigest(),
                content=content,
                mode=opened.mode,
                levels=1 if mode == "1" else opened.levels,
                palette=opened.palette(),
                orientation=opened.orientation,
            )

    def digest(self) -> str:
        """The `sha256` that `decode` would give."""
        with in_words(str(self), f"{self} cannot be read"):
            return hashlib.sha256(self.file.read()).hexdigest()

    def _open(self, content: bytes, *, whole: bool = True) -> Opened:
        """The opened picture, its mode, number of frames and orientation judged. Raises anything, as PIL does."""
        opened = open_picture(content, whole=whole)
        mode, depth = _OPAQUE.get(opened.mode, opened.mode) if opened.mode not in self.modes else opened.mode, opened.depth
        deep = depth > 8 and mode != "I;16"  # PIL cuts deep channels down to 8 bits
        if mode not in self.modes or deep:
            got = _deep_words(mode, depth) if deep else _MODE_WORDS.get(opened.mode, f"of mode {opened.mode}")
            words = " or ".join(_MODE_WORDS[mode] for mode in self.modes)
            wanted = f"an index map ({words}, each value a class id)" if self.role == "label" else words
            advice = _DEEP if self.role == "image" and (deep or mode in ("I;16", "I", "F")) else _ADVICE[self.role]
            raise UnfitError(f"is {got}, wanted {wanted}", advice)
        if self.role == "image":
            opened.only_one()
        else:
            opened.exact()
        if self.upright or opened.image.format == "TIFF":
            require_upright(opened)
        return opened

    def _opaque(self, values: np.ndarray) -> np.ndarray:
        """uint8 (H, W, 2 or 4) -> the same without its last channel, the opacity. Raises UnfitError if one is transparent."""
        clear = int(np.count_nonzero(values[..., -1] != 255))
        if clear:
            raise UnfitError(f"has {clear} transparent pixels, whose colour is undefined", "save it without transparency")
        return np.ascontiguousarray(values[..., 0] if values.shape[-1] == 2 else values[..., :-1])
