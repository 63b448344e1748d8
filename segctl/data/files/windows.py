"""Parts of pictures that are too large for memory, and where on Earth a picture lies: by rasterio, the extra `geo`.

Rows are read as they are needed, so a picture of any size takes the memory of what is asked for. What is read is what pictures.py
and bands.py would give of the whole.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from segctl.data.files.bands import BandImage, BandScaling
from segctl.data.files.numbers import require_rasterio
from segctl.data.files.pictures import TIFF_STARTS, Decoded, UnfitError, in_words
from segctl.errors import InputError

Fact = TypeVar("Fact")
DRIVERS = {**dict.fromkeys(TIFF_STARTS, "GTiff"), b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG"}
"""GDAL's name of each format of which parts can be read, by the first bytes of a file."""


@dataclass(frozen=True)
class Place:
    """Where a picture lies: `crs` and `transform` as rasterio has them."""

    crs: Any
    transform: Any


@dataclass(frozen=True)
class Windows:
    """An open picture of `height` × `width` pixels. place: None where the file does not say.  scaling: None for 8-bit colour."""

    path: Path
    height: int
    width: int
    place: Place | None
    scaling: BandScaling | None
    _file: Any

    def read(self, top: int, left: int, height: int, width: int, *, opaque: bool = False) -> BandImage:
        """(height, width, bands) of the scaling's type, RGB uint8 where there is none. Raises InputError that names the file.

        opaque: raise for transparent pixels too, whose colour is undefined.
        """
        with in_words(f"'{self.path}'", f"cannot read '{self.path}'"):
            values = self._file.read(window=((top, top + height), (left, left + width))).transpose(1, 2, 0)
        if self.scaling is not None:
            return self.scaling.apply(values)
        if opaque and values.shape[2] in (2, 4) and (clear := int(np.count_nonzero(values[..., -1] != 255))):
            problem = f"'{self.path}' has {clear} transparent pixels, whose colour is undefined"
            raise InputError(problem, "save it without transparency")
        # Grey becomes RGB, and transparency is dropped, as for pictures that are read whole.
        return np.ascontiguousarray(values[..., :1].repeat(3, 2) if values.shape[2] < 3 else values[..., :3])


@contextmanager
def open_windows(path: Path, scaling: BandScaling | None = None) -> Iterator[Windows]:
    """A picture to read parts of. Raises InputError that names the file if it is not what a network takes."""
    with in_words(f"'{path}'", f"cannot read '{path}'"):
        opened = _opened(path)
    try:
        with in_words(f"'{path}'", f"cannot read '{path}'"):
            _judge(opened, scaling)
        yield Windows(path, opened.height, opened.width, _place(opened), scaling, opened)
    finally:
        opened.close()


@dataclass(frozen=True)
class LabelRows:
    """An open label picture, of `height` × `width` pixels. mode, levels, palette: as `Decoded` has them."""

    path: Path
    height: int
    width: int
    mode: str
    levels: int
    palette: NDArray[np.uint8] | None
    _file: Any

    def read(self, top: int, rows: int) -> Decoded:
        """These rows as they are in the file, without hash and content. Raises InputError that names the file."""
        with in_words(f"'{self.path}'", f"cannot read '{self.path}'"):
            values = self._file.read(window=((top, top + rows), (0, self.width)))
        array = values[0] if self.mode != "RGB" else np.ascontiguousarray(values.transpose(1, 2, 0))
        return Decoded(array, "", b"", self.mode, self.levels, self.palette)


@contextmanager
def open_label_rows(path: Path, modes: tuple[str, ...]) -> Iterator[LabelRows]:
    """A label picture to read rows of. modes: PIL's, which it may have. Raises InputError for one that is not exact."""
    with in_words(f"'{path}'", f"cannot read '{path}'"):
        opened = _opened(path)
    try:
        with in_words(f"'{path}'", f"cannot read '{path}'"):
            _judge_upright(opened)
            about = opened.tags(ns="IMAGE_STRUCTURE")
            if opened.driver == "JPEG" or about.get("COMPRESSION", "").upper() in ("JPEG", "YCBCR JPEG", "WEBP", "LERC"):
                raise UnfitError("is lossy, so its values are not exact", "save the labels as PNG from where they were drawn")
            if opened.tags(1, ns="IMAGE_STRUCTURE").get("MINISWHITE") or about.get("MINISWHITE"):
                raise UnfitError("stores 0 for white, so its values can be read in two ways", "save the label as an 8-bit PNG")
            bits = int(opened.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 8))
            palette = None
            if opened.colorinterp[0].name == "palette":
                palette, listed = np.zeros((256, 3), np.uint8), opened.colormap(1)
                for index, color in listed.items():
                    palette[index] = color[:3]
            kinds = {(1, "uint8"): "P" if palette is not None else "1" if bits == 1 else "L", (3, "uint8"): "RGB"}
            mode = kinds.get((opened.count, opened.dtypes[0]))
            if mode not in modes or len(set(opened.dtypes)) > 1:
                got = f"{opened.count} bands of {opened.dtypes[0]}"
                raise UnfitError(f"has {got}, wanted 8-bit class ids or class colours", "save it as an 8-bit PNG")
        yield LabelRows(path, opened.height, opened.width, mode, 2**bits - 1 if mode in ("L", "1") else 255, palette, opened)
    finally:
        opened.close()


def _opened(path: Path) -> Any:
    """The file as rasterio has it. Raises UnfitError for a format of which no parts can be read."""
    rasterio = require_rasterio()
    with path.open("rb") as file:
        head = file.read(4)
    driver = next((name for start, name in DRIVERS.items() if head.startswith(start)), None)
    if driver is None:
        raise UnfitError("is of a format that is not read in parts", "save it as TIFF or PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        return rasterio.open(path, driver=driver)


def _judge(opened: Any, scaling: BandScaling | None) -> None:
    """Raise UnfitError for a picture that would be refused, or turned, if it were read whole."""
    _judge_upright(opened)
    kinds = sorted(set(opened.dtypes))
    if scaling is not None:
        empty = np.empty((0, 0, opened.count), opened.dtypes[0])
        scaling.require_fitting(empty)
    elif kinds != ["uint8"] or opened.count > 4:
        raise UnfitError(f"has {opened.count} bands of {', '.join(kinds)}, wanted 8-bit colour or grey", "convert it")
    if opened.colorinterp[0].name == "palette":
        raise UnfitError("is a palette picture", "save it as RGB")


def _judge_upright(opened: Any) -> None:
    """Raise UnfitError for a file of several pages, or one that is stored turned."""
    turned = opened.tags().get("EXIF_Orientation", opened.tags().get("TIFFTAG_ORIENTATION", "1"))
    if turned not in ("0", "1"):
        raise UnfitError(f"is stored turned or mirrored (EXIF orientation {turned})", "save it upright")
    if len(opened.subdatasets) > 1:
        raise UnfitError(f"holds {len(opened.subdatasets)} pages, wanted one", "save each of the pages as a file of its own")


def _place(opened: Any) -> Place | None:
    return None if opened.crs is None and opened.transform.is_identity else Place(opened.crs, opened.transform)


def place_of_picture(path: Path) -> Place | None:
    """Where a picture lies; None if its file does not say, is not a TIFF, or rasterio is not installed."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        return None
    return _about(path, _place)


def size_of_picture(path: Path) -> tuple[int, int] | None:
    """(H, W) of a picture of which parts can be read; None for any other file, or if rasterio is not installed."""
    return _about(path, lambda opened: (opened.height, opened.width))


def _about(path: Path, fact: Callable[[Any], Fact | None]) -> Fact | None:
    """A fact in a picture's header; None if it cannot be read here. Whatever reads its pixels says what is wrong."""
    try:
        import rasterio
    except ImportError:
        return None
    try:
        with _opened(path) as opened:
            return fact(opened)
    except (rasterio.errors.RasterioError, UnfitError, OSError):
        return None


def write_geotiff(
    path: Path, rows: Iterator[NDArray[np.uint8]], size: tuple[int, int], place: Place, palette: NDArray[np.uint8] | None
) -> None:
    """Write class ids, parts uint8 (any height, W) from top to bottom, as a compressed GeoTIFF that lies at `place`.

    size: (H, W).  palette: uint8 (256, 3), the colours that viewers show.
    """
    rasterio = require_rasterio()
    profile = {"driver": "GTiff", "height": size[0], "width": size[1], "count": 1, "dtype": "uint8", "compress": "deflate"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path, "w", crs=place.crs, transform=place.transform, bigtiff="if_safer", **profile) as file:
            if palette is not None:
                file.write_colormap(1, {index: tuple(color) for index, color in enumerate(palette.tolist())})
            top = 0
            for part in rows:
                file.write(part, 1, window=((top, top + len(part)), (0, size[1])))
                top += len(part)
