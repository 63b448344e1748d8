"""The numbers in one picture file as they are there: deep PNGs, TIFFs of any bands and types, .npy arrays.

PNG by OpenCV, which keeps 16 bits where Pillow halves deep RGB. TIFF by rasterio (the extra `geo`), because Pillow refuses most
bands and depths. Whether a file is one upright picture is judged as for any other picture, see pictures.py.
"""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

from segctl.data.files.pictures import ORIENTATION, TIFF_STARTS, UnfitError, open_picture, require_upright, tiff_pages
from segctl.errors import InputError


def numbers_of(content: bytes) -> np.ndarray:
    """(H, W, N): uint8, other integers or floating point. Raises UnfitError unless it is an upright picture of real numbers."""
    if content.startswith(b"\x93NUMPY"):
        return _of_array(np.load(io.BytesIO(content), allow_pickle=False))
    if content.startswith(TIFF_STARTS):
        return _of_tiff(content)
    opened = open_picture(content)
    opened.only_one()
    require_upright(opened)
    if opened.image.format == "PNG" and opened.depth == 16:
        values = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        if values is None or values.dtype != np.uint16:
            opened.image.load()  # raises what is wrong
            raise UnfitError("is a PNG that OpenCV cannot read", "save it again, or as TIFF")
        return np.ascontiguousarray(_in_rgb_order(values))
    if opened.depth > 8 or opened.mode in ("F", "I"):
        raise UnfitError(f"is a deep {opened.image.format}, which is not read", "save it as PNG, TIFF or .npy")
    if opened.mode in ("L", "RGB", "RGBA"):
        values = opened.ids() if opened.mode == "L" else opened.pixels()
        return values.reshape(*values.shape[:2], -1)
    return np.array(opened.image.convert("RGB"))


def _in_rgb_order(values: np.ndarray) -> np.ndarray:
    """OpenCV's blue, green, red[, alpha] -> red, green, blue[, alpha]."""
    if values.ndim == 2:
        return values[..., None]
    return values[..., [2, 1, 0, 3][: values.shape[2]]]


def _of_array(values: np.ndarray) -> np.ndarray:
    """The array of a .npy file, (H, W), (H, W, N) or (N, H, W): bands are the shorter of the first and the last side."""
    if values.dtype.kind not in "uif" or values.ndim not in (2, 3) or 0 in values.shape:
        raise UnfitError(f"is an array {values.dtype.name} of shape {values.shape}", "save numbers of shape (H, W, bands)")
    if values.ndim == 2:
        return values[..., None]
    if values.shape[0] == values.shape[2]:
        raise UnfitError(f"is an array of shape {values.shape}, whose bands may be first or last", "crop one side by a pixel")
    return values if values.shape[2] < values.shape[0] else np.ascontiguousarray(values.transpose(1, 2, 0))


def require_rasterio() -> Any:
    """The package rasterio. Raises InputError where it is not installed."""
    try:
        import rasterio
    except ImportError as error:
        raise InputError(
            "TIFFs of many bands or more than 8 bits need the package 'rasterio'", 'install it with `pip install "segctl[geo]"`'
        ) from error
    # GDAL would keep blocks in a twentieth of the memory, but nothing here reads one twice. GDAL reads this once.
    os.environ.setdefault("GDAL_CACHEMAX", "64")
    return rasterio


@contextmanager
def open_tiff(source: Any) -> Iterator[Any]:
    """A TIFF as a rasterio dataset. source: a path, or the bytes of a file."""
    rasterio = require_rasterio()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # most pictures are not
        if isinstance(source, bytes):
            with rasterio.MemoryFile(source) as memory, memory.open(driver="GTiff") as opened:
                yield opened
        else:
            with rasterio.open(source, driver="GTiff") as opened:
                yield opened


def _of_tiff(content: bytes) -> np.ndarray:
    pages = tiff_pages(content)
    if len(pages) > 1:
        raise UnfitError(f"holds {len(pages)} pages, wanted one", "save each of the pages as a file of its own")
    turned = int(pages[0].get(ORIENTATION, 1)) if pages else 1
    if turned not in (0, 1):
        raise UnfitError(f"is stored turned or mirrored (orientation {turned})", "save it upright")
    with open_tiff(content) as opened:
        judge_numbers(opened)
        if opened.count == 1 and pages and int(pages[0].get(262, 1)) == 3:
            raise UnfitError("is a palette picture", "save it as RGB")
        return np.ascontiguousarray(opened.read().transpose(1, 2, 0))


def judge_numbers(opened: Any) -> None:
    """Raise UnfitError for a TIFF whose numbers are of several types, or are not real."""
    if len(set(opened.dtypes)) > 1 or np.dtype(opened.dtypes[0]).kind not in "uif":
        raise UnfitError(f"holds numbers of {', '.join(sorted(set(opened.dtypes)))}", "save real numbers of one type")
