"""The random view of a training sample: scale, crop, flip, drawn first and then read region by region.

Equal in distribution to the usual pipeline (resize the whole image, pad it to the crop, cut a random crop, flip), but only
the part of the source that ends up in the crop is read and resized. Chosen instead of a warp, because OpenCV's resize is
four to six times as fast as its warpAffine: the resize starts at a source pixel that falls on a scaled pixel to within a
fiftieth, so that both resizes sample the same places.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from segctl.data.classes import IGNORED
from segctl.data.shards.dataset import PackedDataset
from segctl.data.shards.tiles import Region
from segctl.schema.data import DataSpec

PADDING_RGB = (124, 116, 104)
"""ImageNet's mean in RGB: what an image is padded with."""
SEARCH_PX = 96
"""How many scaled pixels back a start is looked for first; seldom must it be looked for farther."""
CLOSE_ENOUGH_PX = 1 / 48
"""Source pixels. On genuine street frames 3 pixels in 10,000 then differ by more than one grey level from resizing the whole, at
hard edges; nearer costs more source pixels to read."""


@dataclass(frozen=True)
class Span:
    """One axis of a view. The scaled axis is `scaled` pixels long; the crop shows `shown` of them, from `start` on,
    after `padding` pixels that lie outside of it."""

    source: int
    scaled: int
    start: int
    shown: int
    padding: int


@dataclass(frozen=True)
class View:
    """What was drawn for one sample: rows and columns of the crop, and whether it is mirrored."""

    crop: tuple[int, int]
    rows: Span
    columns: Span
    flip: bool


def draw_view(size: tuple[int, int], spec: DataSpec, random: np.random.Generator) -> View:
    """Draw a view of an image of `size` (H, W): scale uniform, position uniform, flip by its probability.

    An image smaller than the crop is padded as `spec.padding` says: on both sides alike, an odd pixel more at the bottom and
    right, or at the bottom and right alone.
    """
    scale = _draw_scale(spec, random)
    rows = _draw_span(size[0], spec.crop[0], scale, random)
    columns = _draw_span(size[1], spec.crop[1], scale, random)
    if spec.padding == "end":
        rows, columns = replace(rows, padding=0), replace(columns, padding=0)
    return View(spec.crop, rows, columns, bool(random.random() < spec.flip))


def _draw_scale(spec: DataSpec, random: np.random.Generator) -> float:
    """Any scale of the range, or one of those that lie whole steps above its lower end."""
    low, high = spec.scale
    if spec.scale_step is None:
        return float(random.uniform(low, high))
    count = int((high - low) / spec.scale_step + 1e-6) + 1
    return float(low + spec.scale_step * random.integers(count))


def _draw_span(source: int, crop: int, scale: float, random: np.random.Generator) -> Span:
    scaled = max(1, round(source * scale))
    start = int(random.integers(0, max(scaled - crop, 0) + 1))
    return Span(source, scaled, start, min(scaled, crop), max(crop - scaled, 0) // 2)


def take(
    dataset: PackedDataset, name: str, view: View, out: tuple[np.ndarray, np.ndarray] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The view of a sample: image uint8 (h, w, 3), label uint8 (h, w), written into `out` where given.

    Only the tiles that the view needs are read.
    """
    image, label = (np.empty((*view.crop, 3), np.uint8), np.empty(view.crop, np.uint8)) if out is None else out
    _place(_image_part(dataset, name, view), view, image, PADDING_RGB)
    _place(_label_part(dataset, name, view), view, label, IGNORED)
    return image, label


def _place(part: np.ndarray, view: View, out: np.ndarray, fill: int | tuple[int, ...]) -> None:
    """Put the part of the scaled picture that the crop shows where it belongs, mirrored where the view is, padding around it."""
    top, left = view.rows.padding, view.columns.padding
    bottom, right = top + view.rows.shown, left + view.columns.shown
    if view.flip:
        left, right = view.crop[1] - right, view.crop[1] - left
    out[:top], out[bottom:] = fill, fill
    out[top:bottom, :left], out[top:bottom, right:] = fill, fill
    if view.flip:
        cv2.flip(part, 1, dst=out[top:bottom, left:right])
    else:
        out[top:bottom, left:right] = part


def view_regions(view: View) -> tuple[Region, Region]:
    """The parts of image and label that a view needs, as (top, left, height, width) in source pixels."""
    (top, rows, _), (left, columns, _) = _resize_from(view.rows), _resize_from(view.columns)
    down, across = _nearest(view.rows), _nearest(view.columns)
    label = (int(down[0]), int(across[0]), int(down[-1] - down[0]) + 1, int(across[-1] - across[0]) + 1)
    return (top, left, rows, columns), label


def _image_part(dataset: PackedDataset, name: str, view: View) -> np.ndarray:
    top, rows, skip_rows = _resize_from(view.rows)
    left, columns, skip_columns = _resize_from(view.columns)
    region = dataset.image(name, top, left, rows, columns)
    if (view.rows.source, view.columns.source) != (view.rows.scaled, view.columns.scaled):
        fx, fy = view.columns.scaled / view.columns.source, view.rows.scaled / view.rows.source
        region = cv2.resize(region, None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR)
    part = region[skip_rows : skip_rows + view.rows.shown, skip_columns : skip_columns + view.columns.shown]
    return np.asarray(part)


def _resize_from(span: Span) -> tuple[int, int, int]:
    """(first source pixel, how many, scaled pixels to skip) such that resizing these gives the span's pixels.

    A scaled pixel d samples the source at (d + 1/2)·step - 1/2. A resize that starts at source pixel s samples the same places
    where s = d·step for a whole d, so the nearest such d before the span is looked for.
    """
    step = span.source / span.scaled
    lead = max(0, int(np.ceil(0.5 / step - 0.5)))
    first = _last_on_a_source_pixel(max(0, span.start - lead), step)
    top = round(first * step)
    bottom = min(span.source, int(np.ceil((span.start + span.shown) * step)) + 1)
    return top, bottom - top, span.start - first


def _last_on_a_source_pixel(latest: int, step: float) -> int:
    """The last scaled pixel up to `latest` that starts where a source pixel does. The first always does; where a step is nearly
    1, none in reach may."""
    for earliest in (max(0, latest - SEARCH_PX), 0):
        places = np.arange(latest, earliest - 1, -1) * step
        fitting = np.abs(places - np.rint(places)) <= CLOSE_ENOUGH_PX
        if fitting.any():
            return latest - int(fitting.argmax())
    return 0


def _label_part(dataset: PackedDataset, name: str, view: View) -> np.ndarray:
    """Nearest-exact: each scaled pixel takes the label at its centre."""
    rows, columns = _nearest(view.rows), _nearest(view.columns)
    top, left = int(rows[0]), int(columns[0])
    region = dataset.label(name, top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1)
    if view.rows.scaled < view.rows.source:  # the fewer rows are turned, the better
        return np.asarray(_take_columns(region.take(rows - top, axis=0), columns - left))
    return np.asarray(_take_columns(region, columns - left).take(rows - top, axis=0))


def _take_columns(label: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """label[:, columns]: picking rows copies memory in long runs, so the label is turned for it, which is four times as fast."""
    return np.asarray(cv2.transpose(cv2.transpose(label).take(columns, axis=0)))


def _nearest(span: Span) -> np.ndarray:
    """The source index under the centre of each shown pixel, in whole numbers."""
    pixels = np.arange(span.start, span.start + span.shown)
    return (2 * pixels + 1) * span.source // (2 * span.scaled)
