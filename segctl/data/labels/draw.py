"""The one rasteriser: the shapes of a picture become its label map.

A pixel belongs to a polygon if its centre lies inside, by the even-odd rule; a centre on an edge belongs to the shape on its
right or below, so shapes that share an edge neither overlap nor leave a gap. OpenCV's `fillPoly` follows another rule: it also
draws the outline, so that a square of 4×4 pixels becomes one of 5×5.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from segctl.data.instance_ids import MOST_INSTANCES
from segctl.data.labels.annotations import AnnotatedShape, Runs
from segctl.errors import InputError
from segctl.metrics.instances import FIRST_INSTANCE

MAX_CROSSINGS = 2**26
"""Edges times the rows that they cross, in one ring: more is not the drawing of a person, and takes minutes."""
CROSSINGS_AT_ONCE = 2**21
CROSSES = "polygons that cross themselves, filled by the even-odd rule"
BEYOND = "shapes that reach beyond their picture, cut at its border"
TINY = "shapes that hold no pixel's centre, not drawn"


@dataclass(frozen=True)
class PixelWindow:
    """A part of a picture: rows top to bottom and columns left to right, ends excluded."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def empty(self) -> bool:
        return self.top >= self.bottom or self.left >= self.right


def draw_label_map(
    shapes: Sequence[AnnotatedShape],
    train_ids: Mapping[str, int],
    size: tuple[int, int],
    unlabelled: int,
    instances: NDArray[np.uint16] | None = None,
) -> tuple[np.ndarray, dict[str, int]]:
    """The label map uint8 (H, W) of a picture, and how many shapes have each oddity (CROSSES, BEYOND, TINY).

    train_ids: of each class.  unlabelled: the train id of pixels under no shape.  instances: zeros uint16 (H, W), which become
    the instance map: FIRST_INSTANCE and above, a number for each shape that is one object.
    Shapes of a higher `order` are drawn over those of a lower one; among equals, smaller ones over larger ones.
    Raises InputError for a polygon of too many crossings, or for more than MOST_INSTANCES shapes with `instances`.
    """
    if instances is not None and len(shapes) > MOST_INSTANCES:
        raise InputError(f"it has {len(shapes)} shapes, wanted at most {MOST_INSTANCES} with instances", "leave --instances out")
    height, width = size
    label = np.full(size, unlabelled, np.uint8)
    remarks: dict[str, int] = {}
    for number, shape in enumerate(sorted(shapes, key=lambda shape: (shape.order, -shape.area()))):
        left, top, right, bottom = shape.bounds(height, width)
        window = PixelWindow(
            max(0, math.ceil(top - 0.5)),
            max(0, math.ceil(left - 0.5)),
            min(height, math.ceil(bottom - 0.5)),
            min(width, math.ceil(right - 0.5)),
        )
        # Tools put points on the last pixel's far side, or half a pixel beyond by rounding.
        found = [BEYOND] if min(left, top) < -1 or right > width + 1 or bottom > height + 1 else []
        inside = np.zeros((0, 0), bool)
        if not window.empty:
            inside, crosses = _fill_shape(shape, window, size)
            found += [CROSSES] * crosses
            label[window.top : window.bottom, window.left : window.right][inside] = train_ids[shape.class_name]
            if instances is not None:
                instances[window.top : window.bottom, window.left : window.right][inside] = (
                    FIRST_INSTANCE + number if shape.is_instance else 0
                )
        found += [] if inside.any() else [TINY]
        for remark in found:
            remarks[remark] = remarks.get(remark, 0) + 1
    return label, remarks


def _fill_shape(shape: AnnotatedShape, window: PixelWindow, size: tuple[int, int]) -> tuple[np.ndarray, bool]:
    """bool, as large as the window; and whether a ring crosses itself."""
    if shape.runs is not None:
        return _cut(shape.runs, window), False
    scale = np.array([size[1], size[0]] if shape.relative else [1, 1], np.float64)
    inside, crosses = np.zeros((window.bottom - window.top, window.right - window.left), bool), False
    for ring in shape.rings:
        winding = winding_numbers(ring * scale, window)
        inside |= winding % 2 == 1
        # A ring that crosses itself winds twice round some pixels, or round some clockwise and round others not.
        crosses |= bool(winding.max(initial=0) - winding.min(initial=0) > 1)
    for ring in shape.holes:
        inside &= winding_numbers(ring * scale, window) % 2 == 0
    return inside, crosses


def _cut(runs: Runs, window: PixelWindow) -> np.ndarray:
    return runs.mask()[window.top - runs.top : window.bottom - runs.top, window.left - runs.left : window.right - runs.left]


def winding_numbers(ring: np.ndarray, window: PixelWindow) -> np.ndarray:
    """How often a closed polygon, float64 (N, 2) of x and y, winds round the centre of each pixel: int32, as large as the window.

    Raises InputError for a polygon of too many crossings.
    """
    rows, columns = window.bottom - window.top, window.right - window.left
    steps = np.zeros((rows, columns + 1), np.int32)
    for row, x, sign in _crossings(ring, window):
        # The first pixel whose centre is not left of the crossing; crossings left of the window count for all of its columns.
        column = np.clip(np.ceil(x - 0.5), window.left, window.right).astype(np.intp) - window.left
        place = (row - window.top) * (columns + 1) + column
        count = rows * (columns + 1)
        steps += (np.bincount(place[sign > 0], minlength=count) - np.bincount(place[sign < 0], minlength=count)).reshape(
            steps.shape
        )
    return np.cumsum(steps, axis=1, dtype=np.int32)[:, :-1]


def _crossings(ring: np.ndarray, window: PixelWindow) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(row, x, ±1) of each place where an edge crosses the middle of a row of pixels, in chunks."""
    start, end = ring, np.roll(ring, -1, axis=0)
    down = end[:, 1] > start[:, 1]
    # Each edge is taken from its upper end, so that two polygons that share it cross a row at the very same x.
    upper, lower = np.where(down[:, None], start, end), np.where(down[:, None], end, start)
    first = np.clip(np.ceil(upper[:, 1] - 0.5), window.top, window.bottom).astype(np.int64)
    last = np.clip(np.ceil(lower[:, 1] - 0.5), window.top, window.bottom).astype(np.int64)
    ends = np.cumsum(last - first)
    if len(ends) and ends[-1] > MAX_CROSSINGS:
        raise InputError(
            f"a polygon of {len(ring)} points crosses {int(ends[-1])} rows of pixels in all, wanted at most {MAX_CROSSINGS}",
            "simplify it in the tool that drew it",
        )
    begin = 0
    while begin < len(ring):
        done = ends[begin - 1] if begin else 0
        stop = max(begin + 1, int(np.searchsorted(ends, done + CROSSINGS_AT_ONCE, side="right")))
        part = slice(begin, stop)
        counts = last[part] - first[part]
        edge = np.repeat(np.arange(begin, stop), counts)
        row = np.arange(len(edge)) - np.repeat(ends[part] - counts - done, counts) + first[edge]
        (x0, y0), (x1, y1) = upper[edge].T, lower[edge].T
        yield row, x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0), np.where(down[edge], 1, -1)
        begin = stop
