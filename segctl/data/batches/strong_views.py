"""Strong views of pictures without labels: the weak view with other colours, and a rectangle of another picture's strong view.

Everything is drawn from (seed, epoch, sample, view), so workers, processes and a resumed run make the same views. The other
picture of a rectangle is the next one of the same global batch, whichever process has that one.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from segctl.data.batches.augment import Padding, apply
from segctl.ignored import IGNORED
from segctl.pixel_types import PixelType
from segctl.schema.semi import SemiBase

AREA = (0.02, 0.4)
"""Smallest and largest share of a view that a rectangle covers."""
RATIO = 0.3
"""A rectangle is at least this much, and at most its inverse, as high as wide."""
Weak = tuple[np.ndarray, np.ndarray]
"""A weak view: image (h, w, bands) of uint8 or uint16, and its mark uint8 (h, w), 255 where the picture is not:
padding, or a covered part."""


@dataclass(frozen=True)
class StrongViews:
    """The S strong views of each of M pictures without labels.

    images: (M, S, H, W, bands) of uint8 or uint16.  real: bool (M, S, H, W), the pixels that are neither padding nor covered.
    pasted: bool (M, S, H, W), the pixels that come from the other picture.  others: (M, H, W, bands), the weak views of
    the other pictures. Both are None without CutMix.
    """

    images: Tensor
    real: Tensor
    pasted: Tensor | None = None
    others: Tensor | None = None

    def _each(self, change: Callable[[Tensor], Tensor]) -> "StrongViews":
        pasted, others = (None if part is None else change(part) for part in (self.pasted, self.others))
        return StrongViews(change(self.images), change(self.real), pasted, others)

    def pin_memory(self) -> "StrongViews":
        """The views in page-locked memory."""
        return self._each(Tensor.pin_memory)

    def to(self, device: torch.device) -> "StrongViews":
        """The views on a device."""
        return self._each(lambda part: part.to(device, non_blocking=True))

    def rows(self, first: int, stop: int) -> "StrongViews":
        """The views of some of the pictures."""
        return self._each(lambda part: part[first:stop])

    @classmethod
    def blank(
        cls, semi: SemiBase, pictures: int, size: tuple[int, int], bands: int, pixel_type: PixelType = "uint8"
    ) -> "StrongViews":
        """Black views of this many pictures, for trials of how much memory a step takes."""
        shape, dtype = (pictures, semi.views, *size), getattr(torch, pixel_type)
        return cls(
            torch.zeros(*shape, bands, dtype=dtype),
            torch.ones(shape, dtype=torch.bool),
            torch.zeros(shape, dtype=torch.bool) if semi.cutmix else None,
            torch.zeros(pictures, *size, bands, dtype=dtype) if semi.cutmix else None,
        )


def draw_rectangle(size: tuple[int, int], random: np.random.Generator) -> tuple[slice, slice]:
    """The rows and columns of a rectangle in a view of `size` (H, W): its area is uniform, and so is log(height / width)."""
    area = random.uniform(*AREA) * size[0] * size[1]
    ratio = math.exp(random.uniform(math.log(RATIO), -math.log(RATIO)))
    sides = [
        min(side, max(1, round(wanted)))
        for side, wanted in zip(size, (math.sqrt(area * ratio), math.sqrt(area / ratio)), strict=True)
    ]
    top, left = (int(random.integers(side - part + 1)) for side, part in zip(size, sides, strict=True))
    return slice(top, top + sides[0]), slice(left, left + sides[1])


def strong_views(
    semi: SemiBase,
    positions: Sequence[int],
    other_of: Callable[[int], int],
    weak: Callable[[int], Weak],
    random: Callable[[int, int], np.random.Generator],
    padding: Padding,
) -> StrongViews:
    """The strong views of the pictures at some positions of a stream, of which there is at least one.

    other_of: from a position to that of the picture its rectangle comes from.  weak: the weak view at a position.  random: a
    generator for a position and the number of a view.  padding: the colour of covered pixels.
    """
    shape = weak(positions[0])[1].shape
    bands, dtype = weak(positions[0])[0].shape[2], weak(positions[0])[0].dtype
    images = np.empty((len(positions), semi.views, *shape, bands), dtype)
    real = np.empty((len(positions), semi.views, *shape), bool)
    pasted = np.zeros_like(real) if semi.cutmix else None
    others = np.empty((len(positions), *shape, bands), dtype) if semi.cutmix else None

    def changed(position: int, view: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
        """A view before its rectangle, and the generator as it is then."""
        image, mark = (part.copy() for part in weak(position))
        drawn = random(position, view)
        for step in semi.augment:
            if drawn.random() < step.probability:
                apply(step, image, mark, drawn, padding)
        return image, mark, drawn

    for row, position in enumerate(positions):
        other = other_of(position)
        if others is not None:
            others[row] = weak(other)[0]
        for view in range(semi.views):
            image, mark, drawn = changed(position, view)
            if pasted is not None and drawn.random() < semi.cutmix:
                place = draw_rectangle((shape[0], shape[1]), drawn)
                theirs, their_mark, _ = changed(other, view)
                image[place], mark[place], pasted[row, view][place] = theirs[place], their_mark[place], True
            images[row, view], real[row, view] = image, mark != IGNORED
    return StrongViews(*(None if part is None else torch.from_numpy(part) for part in (images, real, pasted, others)))  # type: ignore[arg-type]
