"""A network's label map of one picture, as an array that can show itself."""

import base64
import html
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from segctl.evaluate.draw_masks import RGB, overlay

LONGEST_SHOWN_SIDE = 960
"""Pixels of an overlay in a notebook; larger ones are shown smaller."""


class PictureLabels(np.ndarray):
    """The class of each pixel, uint8 (H, W), with its picture: an array in every respect, and an overlay in notebooks.

    image: uint8 (H, W, 3).  class_names: by id.  palette: uint8 (256, 3), the colour of each id.
    """

    image: RGB | None
    class_names: list[str]
    palette: NDArray[np.uint8]

    @staticmethod
    def of(ids: NDArray[np.uint8], image: RGB, class_names: Sequence[str], palette: NDArray[np.uint8]) -> "PictureLabels":
        """ids uint8 (H, W) of `image`."""
        found = ids.view(PictureLabels)
        found.image, found.class_names, found.palette = image, list(class_names), palette
        return found

    def __array_finalize__(self, source: Any) -> None:
        # A part of a map, or a map after arithmetic, no longer lies over the picture.
        self.image = None
        self.class_names = getattr(source, "class_names", [])
        self.palette = getattr(source, "palette", np.zeros((256, 3), np.uint8))

    def overlay(self) -> Image.Image:
        """The picture, half covered by the class colours. Raises ValueError for a part of a map."""
        if self.image is None:
            raise ValueError("this array is a part or a copy of a label map: call overlay() on what predict() returned")
        return Image.fromarray(overlay(self.image, np.asarray(self), self.palette))

    def _repr_html_(self) -> str | None:
        """What a notebook shows: the overlay, and the classes in it by their part of the pixels."""
        if self.image is None:
            return None  # the notebook shows the array
        shown = self.overlay()
        shown.thumbnail((LONGEST_SHOWN_SIDE, LONGEST_SHOWN_SIDE))
        file = io.BytesIO()
        shown.save(file, "JPEG", quality=90)
        counts = np.bincount(np.asarray(self).ravel(), minlength=len(self.class_names))
        legend = "".join(
            f'<span style="margin-right:1em;white-space:nowrap"><span style="display:inline-block;width:.8em;height:.8em;'
            f'background:rgb({red},{green},{blue})"></span> {html.escape(self.class_names[index])} '
            f"{100 * counts[index] / max(1, self.size):.1f} %</span> "
            for index in np.argsort(-counts[: len(self.class_names)], kind="stable")
            if counts[index]
            for red, green, blue in [self.palette[index].tolist()]
        )
        picture = base64.b64encode(file.getvalue()).decode()
        return f'<div><img alt="class colours over the picture" src="data:image/jpeg;base64,{picture}"><div>{legend}</div></div>'
