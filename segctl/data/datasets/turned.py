"""A person's photos that are stored turned, as phones do: EXIF says how they must be turned to be upright.

Where the sizes of photo and label tell what the label was drawn on, the sample becomes upright. A label of the upright size was
drawn on the upright photo. A label map of the stored size was drawn on the stored pixels, and is turned with them. Where both
sizes are equal, because the photo is square or upside down, nothing tells it, and the photo is refused.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from segctl.data.files.archives import File
from segctl.data.files.bands import BandPicture
from segctl.data.files.pictures import Decoded, Picture, in_words, refuse_turned, turn_upright

REMARK = "images stored turned (EXIF), made upright as the sizes of their labels show"


class Sized(Protocol):
    """A label that may know its (H, W)."""

    def size(self) -> tuple[int, int] | None: ...


@dataclass(frozen=True)
class OwnImage:
    """The image of one sample, in place of a `Picture`. label: what was drawn on it.  is_map: whether that can be turned."""

    picture: Picture
    label: Sized
    is_map: bool

    def __str__(self) -> str:
        return str(self.picture)

    @property
    def file(self) -> File:
        return self.picture.file

    def size(self) -> tuple[int, int]:
        """(H, W) of the upright image. Raises InputError for a file that is not what it must be."""
        size, orientation = self.picture.size_and_orientation()
        self._label_turn(size, orientation)
        return size[::-1] if orientation >= 5 else size

    def label_size(self) -> tuple[int, int]:
        """(H, W) that the label must have."""
        size, orientation = self.picture.size_and_orientation()
        return size if self._label_turn(size, orientation) != 1 or orientation < 5 else size[::-1]

    def decode(self) -> Decoded:
        """The upright image; `label_turn` says how its label must be turned. Raises as `Picture.decode`."""
        found = self.picture.decode()
        if found.orientation == 1:
            return found
        label_turn = self._label_turn((found.array.shape[0], found.array.shape[1]), found.orientation)
        array = turn_upright(found.array, found.orientation)
        # Its file is not the image, so a shard cannot keep it in place of the pixels.
        return replace(found, array=array, mode=f"{found.mode} turned", orientation=1, label_turn=label_turn, remark=REMARK)

    def digest(self) -> str:
        return self.picture.digest()

    def _label_turn(self, stored: tuple[int, int], orientation: int) -> int:
        """The EXIF orientation of the label, 1 where it is upright. Raises InputError where the sizes do not tell it."""
        if orientation == 1:
            return 1
        upright = stored[::-1] if orientation >= 5 else stored
        label = self.label.size()
        if upright != stored and label == upright:
            return 1
        if upright != stored and label == stored and self.is_map:
            return orientation
        with in_words(str(self), f"{self} cannot be read"):
            refuse_turned(orientation)
        raise AssertionError


def may_be_turned(
    images: Mapping[str, Picture | BandPicture], labels: Mapping[str, Sized], *, is_map: bool
) -> dict[str, Picture | BandPicture | OwnImage]:
    """The images of a person's samples; those of 8-bit colour may be stored turned. is_map: whether labels are label maps."""
    return {
        sample: OwnImage(replace(image, upright=False), labels[sample], is_map) if isinstance(image, Picture) else image
        for sample, image in images.items()
    }
