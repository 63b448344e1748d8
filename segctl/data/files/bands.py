"""Pictures of more than 8-bit RGB: which of their bands are taken, and how their numbers become those of images.

    scaled   value -> 255 · (value - low) / (high - low), rounded, cut to 0 and 255; a pixel without a number (NaN) becomes 0
    kept     uint16 numbers stay as they are

The bands, their order and the range are those of a whole dataset. They are kept in its dataset.json, in the model file and in
exported files, so that a picture has the same pixels wherever it is read.
Files are read by numbers.py.
"""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from segctl.data.files.archives import File, PlainFile
from segctl.data.files.numbers import judge_numbers, numbers_of, open_tiff
from segctl.data.files.pictures import (
    TIFF_STARTS,
    Decoded,
    UnfitError,
    in_words,
    named,
    open_picture,
)
from segctl.errors import InputError
from segctl.pixel_types import LARGEST, PixelType, pixel_type_of

DEEP_ENDINGS = (".npy",)
"""Endings of pictures that are listed only where bands or a range are given."""
SHOWN_BANDS = 3
"""How many bands a screen shows."""
PERCENTILES = (2.0, 98.0)
"""What `--range percentile` stands for, and how much of a uint16 picture a screen shows between black and white."""
MEASURED_PICTURES, MEASURED_PIXELS = 256, 2**16
"""How many pictures, and how many pixels of each, `--range percentile` looks at: evenly spread, so always the same ones."""
IN_ROWS_PX = 2**25
"""TIFFs of more pixels are measured some rows at a time."""
_ANOTHER_RANGE = "give one of them alone: numbers such as --range 0,10000, --range percentile, or --range keep"
BandImage = NDArray[np.uint8] | NDArray[np.uint16]
"""(H, W, bands), of one of `pixel_types`."""


class BandScaling(BaseModel):
    """How the numbers in a dataset's picture files become the bands of its images.

    bands: the chosen ones in order, counted from 1.  of: how many a file has.  dtype: of the numbers in a file, by NumPy's name.
    ranges: for each chosen band the numbers that become 0 and 255 of uint8; None where uint16 numbers are kept as they are.
    mean, std: of each chosen band over the training pictures, as they are in the images, in fractions of the largest number of
    their type: of 255 for uint8, of 65535 for uint16.
    """

    model_config = ConfigDict(frozen=True)

    bands: tuple[int, ...] = Field(min_length=1)
    of: int
    dtype: str
    ranges: tuple[tuple[float, float], ...] | None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _keeps_uint16_alone(self) -> "BandScaling":
        if self.ranges is None and self.dtype != "uint16":
            raise ValueError("only uint16 numbers are kept without ranges")
        return self

    @property
    def pixel_type(self) -> PixelType:
        """The type of the images."""
        return pixel_type_of({"ranges": self.ranges})

    @property
    def rule(self) -> str:
        """What decides the pixels, as part of a dataset's fingerprint."""
        if self.ranges is None:
            return f"bands {','.join(map(str, self.bands))} of {self.of} {self.dtype} kept"
        ranges = " ".join(f"{low:.17g}:{high:.17g}" for low, high in self.ranges)
        return f"bands {','.join(map(str, self.bands))} of {self.of} {self.dtype} range {ranges}"

    @property
    def padding(self) -> tuple[int, ...]:
        """The value of each band around a picture that is smaller than a crop: its mean."""
        return tuple(round(LARGEST[self.pixel_type] * mean) for mean in self.mean or (0.5,) * len(self.bands))

    def in_words(self) -> str:
        """One sentence for people."""
        numbers = ", ".join(map(str, self.bands))
        which = f"band {numbers}" if len(self.bands) == 1 else f"bands {numbers}"
        if self.ranges is None:
            return f"images are {which} of {self.of} ({self.dtype}), whose numbers are kept as they are"
        same = self.ranges[:1] if len(set(self.ranges)) == 1 else self.ranges
        ranges = ", ".join(f"{low:g} to {high:g}" for low, high in same)
        return f"images are {which} of {self.of} ({self.dtype}), {ranges} scaled to 0 to 255"

    def statistics_in_words(self) -> str:
        """Mean and deviation of each band in the numbers of the images; empty before they are measured."""
        if self.mean is None or self.std is None:
            return ""
        largest = LARGEST[self.pixel_type]
        bands = [
            f"band {band} {mean * largest:.6g} ± {std * largest:.6g}"
            for band, mean, std in zip(self.bands, self.mean, self.std, strict=True)
        ]
        return f"mean ± deviation of the training images ({self.pixel_type}, 0 to {largest}): {', '.join(bands)}"

    def apply(self, values: np.ndarray) -> BandImage:
        """Numbers (H, W, of) of the type `dtype` -> an image (H, W, chosen bands) of `pixel_type`."""
        if self.ranges is None:
            # A .npy file may hold them in another byte order; shards and networks take the machine's own.
            return np.ascontiguousarray(values[..., [band - 1 for band in self.bands]], np.uint16)
        if all(pair == (0.0, 255.0) for pair in self.ranges) and values.dtype == np.uint8:
            return np.ascontiguousarray(values[..., [band - 1 for band in self.bands]])
        out = np.empty((*values.shape[:2], len(self.bands)), np.uint8)
        for index, (band, (low, high)) in enumerate(zip(self.bands, self.ranges, strict=True)):
            _scale_plane(values[..., band - 1], low, high, out[..., index])
        return out

    def require_fitting(self, values: np.ndarray) -> None:
        """Raise UnfitError for numbers (H, W, N) of another type or of other bands than the dataset's."""
        if values.shape[2] != self.of or values.dtype.name != self.dtype:
            raise UnfitError(
                f"has {_bands(values.shape[2])} of {values.dtype.name}, wanted {_bands(self.of)} of {self.dtype}",
                "give pictures of one kind: the range and the numbers of the bands hold for all of them",
            )


def differing_scaling(network: BandScaling | None, dataset: BandScaling | None) -> str:
    """Why a network may see other pixels in a dataset than it was trained on, in a sentence; empty if the scaling is the same."""
    if (network and network.rule) == (dataset and dataset.rule):
        return ""
    seen, given = ("images are 8-bit RGB" if one is None else one.in_words() for one in (network, dataset))
    return f"the network was trained where {seen}; here {given}, so the same number is another pixel to it"


def _scale_plane(plane: np.ndarray, low: float, high: float, out: NDArray[np.uint8]) -> None:
    """Write the scaled numbers of a band (H, W) into `out`."""
    if plane.dtype == np.uint16:  # a table of all numbers is ten times as fast as computing each pixel
        out[:] = _scaled(np.arange(2**16), low, high)[plane]
    else:
        for start in range(0, len(plane), 1024):  # in parts, because float64 is eight times as large as the result
            out[start : start + 1024] = _scaled(plane[start : start + 1024], low, high)


def _scaled(values: np.ndarray, low: float, high: float) -> NDArray[np.uint8]:
    wide = np.nan_to_num((values.astype(np.float64) - low) * (255 / (high - low)), nan=0.0, posinf=255.0, neginf=0.0)
    return np.clip(np.rint(wide), 0, 255).astype(np.uint8)


def _bands(count: int) -> str:
    return f"{count} band" if count == 1 else f"{count} bands"


def shown_rgb(image: BandImage) -> NDArray[np.uint8]:
    """An image (H, W, N) -> uint8 (H, W, 3) for a screen: the first three bands, or the first one as grey.

    Of a uint16 image, the 2nd percentile of each band becomes black and the 98th white, as viewers of satellite pictures do:
    16 bits seldom use their whole range, and a screen would show them as black.
    """
    bands = image if image.shape[2] == SHOWN_BANDS else image[..., : SHOWN_BANDS if image.shape[2] > SHOWN_BANDS else 1]
    if bands.dtype != np.uint8:
        step = max(1, math.isqrt(bands.shape[0] * bands.shape[1] // MEASURED_PIXELS))
        ends = np.percentile(bands[::step, ::step], PERCENTILES, axis=(0, 1)).T
        shown = np.empty(bands.shape, np.uint8)
        for index, (low, high) in enumerate(ends):
            _scale_plane(bands[..., index], low, max(high, low + 1), shown[..., index])
        bands = shown
    return np.ascontiguousarray(bands if bands.shape[2] == SHOWN_BANDS else bands.repeat(SHOWN_BANDS, 2))


@dataclass(frozen=True)
class BandChoice:
    """What a person said about bands and ranges: `--bands 4,3,2`, and `--range 0,3000`, `--range percentile` or `--range keep`.

    bands: None for the only sensible ones.  ranges: one for all or one a band; None for 0 to 255 of 8-bit files.
    percentile: measure the ranges.  keep: take the numbers as they are, 8 or 16 bits.
    """

    bands: tuple[int, ...] | None
    ranges: tuple[tuple[float, float], ...] | None = None
    percentile: bool = False
    keep: bool = False

    @staticmethod
    def of(bands: str | None, ranges: Sequence[str]) -> "BandChoice | None":
        """From the texts of the options; None if neither is given. Raises InputError."""
        if bands is None and not ranges:
            return None
        chosen = None
        if bands is not None:
            if not re.fullmatch(r"\s*[1-9]\d{0,3}(\s*[, ]\s*[1-9]\d{0,3})*\s*", bands):
                raise InputError(f"--bands is '{bands}', wanted numbers from 1 such as 4,3,2")
            chosen = tuple(map(int, re.findall(r"\d+", bands)))
        words = [text.strip().lower() for text in ranges]
        if word := next((word for word in words if word in ("percentile", "keep")), None):
            if len(ranges) > 1:
                raise InputError(f"--range {word} cannot be combined with another --range", _ANOTHER_RANGE)
            return BandChoice(chosen, percentile=word == "percentile", keep=word == "keep")
        return BandChoice(chosen, tuple(map(_range, ranges)) or None)

    def resolved(self, files: Sequence[File]) -> BandScaling:
        """The scaling of a dataset: the kind of its pictures is that of the first. files: the training pictures, at least one.

        Raises InputError if bands or ranges do not fit, or are missing.
        """
        count, dtype = _kind(files[0])
        bands = self._chosen(count, files[0])
        if self.ranges is not None and len(self.ranges) not in (1, len(bands)):
            raise InputError(
                f"--range is given {len(self.ranges)} times for {_bands(len(bands))}",
                "give it once, or once for each band in order",
            )
        scaling = BandScaling(bands=bands, of=count, dtype=dtype.name, ranges=((0.0, 255.0),) * len(bands))
        if self.percentile:
            return scaling.model_copy(update={"ranges": _measured(files, scaling)})
        if self.ranges is not None:
            ranges = self.ranges * len(bands) if len(self.ranges) == 1 else self.ranges
            return scaling.model_copy(update={"ranges": ranges})
        if self.keep and dtype.name not in LARGEST:
            raise InputError(
                f"--range is keep, but '{files[0].where}' holds numbers of {dtype.name}, wanted {' or '.join(LARGEST)}",
                "give --range LOW,HIGH or --range percentile to scale them to 8 bits, or save them as uint16",
            )
        if self.keep and dtype.name == "uint16":
            return scaling.model_copy(update={"ranges": None})
        if dtype != np.uint8:
            kept = "--range keep to take all 16 bits, " if dtype.name == "uint16" else ""
            raise InputError(
                f"'{files[0].where}' holds numbers of {dtype.name}, and nothing says which of them is black and which is white",
                f"give {kept}--range LOW,HIGH, or --range percentile to measure them",
            )
        return scaling

    def _chosen(self, count: int, file: File) -> tuple[int, ...]:
        if self.bands is None:
            # A grey picture becomes RGB, as one of 8 bits does.
            if count not in (1, SHOWN_BANDS):
                raise InputError(
                    f"'{file.where}' has {_bands(count)}, and nothing says which of them are meant",
                    f"choose them in order, such as --bands 3,2,1 or --bands {','.join(map(str, range(1, min(count, 8) + 1)))}",
                )
            return (1, 1, 1) if count == 1 else (1, 2, 3)
        if max(self.bands) > count:
            raise InputError(
                f"--bands names band {max(self.bands)}, but '{file.where}' has {_bands(count)}", "bands count from 1"
            )
        return self.bands


def _range(text: str) -> tuple[float, float]:
    try:
        low, high = map(float, re.split(r"[,:\s]+", text.strip()))
    except ValueError as error:
        raise InputError(f"--range is '{text}', wanted LOW,HIGH, percentile or keep", "for example --range 0,10000") from error
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise InputError(f"--range is '{text}', wanted the smaller number first, and both finite", "for example --range 0,10000")
    return low, high


def _measured(files: Sequence[File], scaling: BandScaling) -> tuple[tuple[float, float], ...]:
    """The 2nd and the 98th percentile of each chosen band, over evenly spread pixels of evenly spread pictures."""
    count = min(len(files), MEASURED_PICTURES)
    columns = [band - 1 for band in scaling.bands]
    samples = []
    for index in range(count):
        file = files[index * len(files) // count]
        samples.append(_spread_pixels(file, scaling)[:, columns])
    numbers = np.concatenate(samples)
    found = []
    for index, band in enumerate(scaling.bands):
        finite = numbers[:, index][np.isfinite(numbers[:, index])]
        low, high = (float(value) for value in np.percentile(finite, PERCENTILES)) if finite.size else (0.0, 0.0)
        if low >= high:
            problem = f"holds {low:g} nearly everywhere" if finite.size else "holds no number at all"
            raise InputError(f"--range is percentile, but band {band} {problem}", "give --range LOW,HIGH, or leave the band out")
        found.append((low, high))
    return tuple(found)


@contextmanager
def _large_tiff(file: File) -> Iterator[Any]:
    """A TIFF on the disk that is too large to be read as a whole, opened; None for any other file."""
    if not isinstance(file, PlainFile) or not file.read(4).startswith(TIFF_STARTS):
        yield None
        return
    with open_tiff(file.container) as opened:
        yield opened if opened.width * opened.height > IN_ROWS_PX else None


def _kind(file: File) -> tuple[int, np.dtype[Any]]:
    """How many bands a picture file has, and of which numbers. Raises InputError that names the file."""
    with named(file), _large_tiff(file) as opened:
        if opened is not None:
            judge_numbers(opened)
            return opened.count, np.dtype(opened.dtypes[0])
    first = read_numbers(file)
    return first.shape[2], first.dtype


def _spread_pixels(file: File, scaling: BandScaling) -> np.ndarray:
    """About MEASURED_PIXELS evenly spread pixels of a picture file at most, (pixels, N). Raises InputError that names it."""
    with named(file), _large_tiff(file) as opened:
        if opened is not None:
            judge_numbers(opened)
            scaling.require_fitting(np.empty((0, 0, opened.count), opened.dtypes[0]))
            step, found = max(1, -(-opened.width * opened.height // MEASURED_PIXELS)), []
            for top in range(0, opened.height, 512):
                rows = opened.read(window=((top, min(top + 512, opened.height)), (0, opened.width)))
                found.append(rows.reshape(opened.count, -1)[:, -top * opened.width % step :: step].T)
            return np.concatenate(found)
    values = read_numbers(file, scaling).reshape(-1, scaling.of)
    return values[:: max(1, -(-len(values) // MEASURED_PIXELS))]


def read_numbers(file: File, scaling: BandScaling | None = None) -> np.ndarray:
    """The numbers in a picture file as they are there, (H, W, N): uint8, other integers or floating point.

    scaling: what the file must fit. Raises InputError that names the file.
    """
    with named(file):
        values = numbers_of(file.read())
        if scaling is not None:
            scaling.require_fitting(values)
        return values


def read_bands(file: File, scaling: BandScaling) -> BandImage:
    """A picture file as an image (H, W, chosen bands). Raises InputError that names the file."""
    return scaling.apply(read_numbers(file, scaling))


@dataclass(frozen=True)
class BandPicture:
    """A picture file of one sample, read as `scaling` says. It takes the place of a `Picture` of the role "image"."""

    sample: str
    file: File
    scaling: BandScaling
    role: str = field(default="image", init=False)

    def __str__(self) -> str:
        return f"the image of sample '{self.sample}' ({self.file.where})"

    def size(self) -> tuple[int, int]:
        """(H, W). Raises InputError if the file is not what it must be."""
        with in_words(str(self), f"{self} cannot be read"):
            content = self.file.read()
            if content.startswith(b"\x93NUMPY"):
                height, width = numbers_of(content).shape[:2]
                return height, width
            if content.startswith(TIFF_STARTS):
                with open_tiff(content) as opened:
                    return opened.height, opened.width
            image = open_picture(content).image
            return image.height, image.width

    def decode(self) -> Decoded:
        """The picture as an image (H, W, bands), its file read once. Raises InputError that names sample and file."""
        with in_words(str(self), f"{self} cannot be read"):
            content = self.file.read()
            values = numbers_of(content)
            self.scaling.require_fitting(values)
            return Decoded(self.scaling.apply(values), hashlib.sha256(content).hexdigest(), content, mode="bands")

    def digest(self) -> str:
        """The `sha256` that `decode` would give."""
        with in_words(str(self), f"{self} cannot be read"):
            return hashlib.sha256(self.file.read()).hexdigest()
