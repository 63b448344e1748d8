"""The type of the numbers in images: uint8, or uint16 where a dataset keeps the 16-bit numbers of its picture files.

The one home of this fact. A dataset, a network and an exported file each have a record `pixels` (`data.files.bands.BandScaling`)
that decides it, and whatever makes an image or reads one asks here. A network never sees images of another type than it was
trained on: the same number would be another brightness to it.
"""

from collections.abc import Mapping
from typing import Any, Literal

from segctl.errors import InputError

PixelType = Literal["uint8", "uint16"]
LARGEST: dict[PixelType, int] = {"uint8": 2**8 - 1, "uint16": 2**16 - 1}
"""The largest number of each type. Means and deviations of bands count as fractions of it."""


def pixel_type_of(pixels: Mapping[str, Any] | None) -> PixelType:
    """The type of the images that a record `pixels` as JSON describes; None is 8-bit colour.

    Bands that are kept as they are have no ranges. Versions that know uint8 alone need ranges, so they refuse such a record.
    """
    return "uint16" if pixels is not None and pixels.get("ranges") is None else "uint8"


def require_type(takes: PixelType, got: PixelType, who: str, of_what: str) -> None:
    """Raise InputError that names both types if `who` takes images of another type than those of `of_what` have."""
    if takes != got:
        raise InputError(
            f"{who} takes {takes} images, but those of {of_what} are {got}",
            "prepare the pictures with --range keep for uint16 images"
            if takes == "uint16"
            else "prepare the pictures with --range LOW,HIGH or --range percentile for uint8 images",
        )
