"""The form that every annotation format is read into: a class table, and for each picture a list of shapes.

A format's file reads documents into an `AnnotationSet`; `draw` turns the shapes of a picture into a label map.
Coordinates are those of all these tools: pixel (column, row) covers [column, column + 1) × [row, row + 1).
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from segctl.data.datasets.pairs import Color
from segctl.data.findings import Finding

MAX_POINTS = 1_000_000
"""The most points of one picture: a person draws some thousands."""
MAX_COORDINATE = 1e6
MAX_SIDE = 2**16


class ShapeError(ValueError):
    """A shape that cannot be drawn: what is wrong with it, in words that follow "the shape"."""


class TooFewPointsError(ShapeError):
    """A polygon of one or two points, which a slip of the mouse leaves behind: it covers nothing."""


@dataclass(frozen=True, eq=False)
class Runs:
    """A run-length encoded mask: lengths that alternate between outside and inside, outside first.

    lengths: int64 (n,).  height, width: of the mask.  by_column: whether the runs go down the columns (COCO) or along the rows.
    left, top: where the mask lies in the picture, in pixels.
    """

    lengths: np.ndarray
    height: int
    width: int
    by_column: bool = False
    left: int = 0
    top: int = 0

    def __post_init__(self) -> None:
        if not (0 < self.height <= MAX_SIDE and 0 < self.width <= MAX_SIDE):
            raise ShapeError(f"has a mask of {self.width}×{self.height} pixels, wanted sides of 1 to {MAX_SIDE}")
        if len(self.lengths) and (self.lengths.min() < 0 or self.lengths.max() > self.height * self.width):
            raise ShapeError(f"has a run of {self.lengths[self.lengths.argmin() if self.lengths.min() < 0 else 0]} pixels")
        if (total := int(self.lengths.sum())) != self.height * self.width:
            raise ShapeError(f"has runs of {total} pixels in all, wanted {self.height * self.width} ({self.width}×{self.height})")

    @classmethod
    def of_mask(cls, mask: np.ndarray, left: int = 0, top: int = 0) -> "Runs":
        """Encode a mask bool (H, W)."""
        if mask.ndim != 2 or not mask.size:
            raise ShapeError("has an empty mask")
        flat = np.concatenate([[False], mask.ravel(), [not mask.ravel()[-1]]])
        ends = np.flatnonzero(flat[1:] != flat[:-1])
        return cls(np.diff(np.concatenate([[0], ends])), mask.shape[0], mask.shape[1], left=left, top=top)

    def mask(self) -> np.ndarray:
        """bool (height, width)."""
        inside = np.arange(len(self.lengths)) % 2 == 1
        flat = np.repeat(inside, self.lengths)
        return flat.reshape(self.width, self.height).T if self.by_column else flat.reshape(self.height, self.width)

    def area(self) -> int:
        return int(self.lengths[1::2].sum())


@dataclass(frozen=True, eq=False)
class AnnotatedShape:
    """One region of one class. It is the union of `rings` without the union of `holes`, or what `runs` say.

    rings, holes: float64 (N, 2), x and y of the corners of closed polygons, each filled by the even-odd rule; in pixels, or in
    widths and heights of the picture if `relative`.  order: higher is drawn later; among equals the larger shape is drawn first.
    is_instance: whether the format says that the shape is one object, and not a crowd or a region.
    """

    class_name: str
    rings: tuple[np.ndarray, ...] = ()
    holes: tuple[np.ndarray, ...] = ()
    runs: Runs | None = None
    order: float = 0.0
    relative: bool = False
    is_instance: bool = False

    def area(self) -> float:
        """Rings less holes by the shoelace formula, or the pixels of the runs. It only decides which shape is drawn first."""
        if self.runs is not None:
            return float(self.runs.area())
        return sum(map(_ring_area, self.rings)) - sum(map(_ring_area, self.holes))

    def points(self) -> int:
        return sum(len(ring) for ring in (*self.rings, *self.holes)) + (0 if self.runs is None else len(self.runs.lengths))

    def bounds(self, height: int, width: int) -> tuple[float, float, float, float]:
        """Left, top, right, bottom in pixels of a picture of that size."""
        if self.runs is not None:
            left, top = self.runs.left, self.runs.top
            return left, top, left + self.runs.width, top + self.runs.height
        scale = np.array([width, height] if self.relative else [1, 1])
        corners = np.concatenate(self.rings) * scale
        (left, top), (right, bottom) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        return left, top, right, bottom


def _ring_area(ring: np.ndarray) -> float:
    x, y = ring[:, 0] - ring[0, 0], ring[:, 1] - ring[0, 1]
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def shortly(value: Any) -> str:
    """A value from a file, as a message shows it."""
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def number(value: Any, what: str) -> float:
    """A finite number from a file. Raises ShapeError that calls it `what`."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if isinstance(value, bool) or not abs(found) <= MAX_COORDINATE:
        raise ShapeError(f"has {shortly(value)} for its {what}, wanted a number")
    return found


def size_of(height: Any, width: Any) -> tuple[int, int] | None:
    """(H, W) if the file says it, None if it leaves it out. Raises ShapeError for anything but positive whole numbers."""
    if height is None and width is None:
        return None
    found = (number(height, "height"), number(width, "width"))
    if any(side < 1 or side % 1 for side in found):
        raise ShapeError(f"is {shortly(width)}×{shortly(height)} pixels, wanted whole numbers above 0")
    return int(found[0]), int(found[1])


def ring(points: Any) -> np.ndarray:
    """Corners float64 (N, 2) from a list of pairs. Raises ShapeError if it is not a polygon."""
    if not isinstance(points, list | tuple | np.ndarray):
        raise ShapeError("has no list of points")
    if len(points) > MAX_POINTS:
        raise ShapeError(f"has {len(points)} points, wanted at most {MAX_POINTS}")
    try:
        corners = np.array(points, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ShapeError("has points that are not pairs of numbers") from error
    if corners.ndim != 2 or corners.shape[1] != 2:
        raise ShapeError("has points that are not pairs of numbers")
    if not np.isfinite(corners).all() or np.abs(corners).max(initial=0) > MAX_COORDINATE:
        raise ShapeError("has a coordinate that is no pixel of any picture")
    if len(corners) < 3:
        raise TooFewPointsError(f"has {len(corners)} point{'s' * (len(corners) != 1)}, wanted 3 or more")
    return corners


def flat_ring(numbers: Any) -> np.ndarray:
    """Corners float64 (N, 2) from a list x, y, x, y, … Raises ShapeError if it is not a polygon."""
    if not isinstance(numbers, list | tuple) or len(numbers) % 2:
        raise ShapeError("has an odd number of coordinates" if isinstance(numbers, list) else "has no list of points")
    if len(numbers) > 2 * MAX_POINTS:
        raise ShapeError(f"has {len(numbers) // 2} points, wanted at most {MAX_POINTS}")
    return ring(list(zip(numbers[::2], numbers[1::2], strict=True)))


def box_ring(left: float, top: float, right: float, bottom: float, degrees: float = 0.0) -> np.ndarray:
    """The corners of a box, turned clockwise about its centre."""
    corners = ring([(left, top), (right, top), (right, bottom), (left, bottom)])
    return _turned(corners, (left + right) / 2, (top + bottom) / 2, degrees) if degrees else corners


def ellipse_ring(x: float, y: float, radius_x: float, radius_y: float, degrees: float = 0.0) -> np.ndarray:
    """An ellipse as a polygon that nowhere lies more than a hundredth of a pixel inside it."""
    if not 0 <= max(radius_x, radius_y) <= MAX_COORDINATE or min(radius_x, radius_y) < 0:
        raise ShapeError("has a radius that is not a length in any picture")
    count = max(16, math.ceil(math.pi / math.acos(1 - 0.01 / max(radius_x, radius_y, 1.0))))
    angles = np.arange(count) * (2 * math.pi / count)
    corners = ring(np.stack([x + radius_x * np.cos(angles), y + radius_y * np.sin(angles)], axis=1))
    return _turned(corners, x, y, degrees) if degrees else corners


def line_rings(points: Any, width: float) -> tuple[np.ndarray, ...]:
    """The stroke of an open line: a rectangle for each segment, and a disc where two segments meet."""
    if isinstance(points, list) and len(points) == 2:
        points = [*points, points[-1]]
    corners = ring(points)  # a segment there and back again counts as a line of two points
    corners = corners[np.r_[True, (np.diff(corners, axis=0) != 0).any(axis=1)]]
    rings = []
    for start, end in pairwise(corners):
        along = (end - start) / np.hypot(*(end - start))
        across = np.array([-along[1], along[0]]) * width / 2
        rings.append(np.array([start + across, end + across, end - across, start - across]))
    if not rings:
        raise ShapeError("is a line without length")
    return (*rings, *(ellipse_ring(float(corner[0]), float(corner[1]), width / 2, width / 2) for corner in corners[1:-1]))


def _turned(corners: np.ndarray, x: float, y: float, degrees: float) -> np.ndarray:
    if not math.isfinite(degrees):
        raise ShapeError("has an angle that is not a number")
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    across, down = corners[:, 0] - x, corners[:, 1] - y
    return np.stack([x + cosine * across - sine * down, y + sine * across + cosine * down], axis=1)


@dataclass
class AnnotatedPicture:
    """What one annotation file says about one picture.

    names: what the picture's file may be called, the surest name first; paths with `/`.  where: the annotation file.
    size: (H, W) if the file says it.
    """

    names: tuple[str, ...]
    where: str
    size: tuple[int, int] | None = None
    shapes: list[AnnotatedShape] = field(default_factory=list)
    points: int = 0

    @property
    def called(self) -> str:
        return self.names[0]

    def add(self, shape: AnnotatedShape) -> None:
        """Raises ShapeError if the picture then has too many points."""
        self.points += shape.points()
        if self.points > MAX_POINTS:
            raise ShapeError(f"has more than {MAX_POINTS} points together with the others of its picture")
        self.shapes.append(shape)

    def digest(self) -> str:
        """Hash over everything that decides what is drawn; the same on any machine."""
        parts = hashlib.sha256()
        for shape in self.shapes:
            parts.update(f"{shape.class_name!r} {shape.order!r} {shape.relative} ".encode())
            for kind, rings in (("ring", shape.rings), ("hole", shape.holes)):
                for corners in rings:
                    parts.update(f"{kind} {len(corners)} ".encode() + corners.astype("<f8").tobytes())
            if (runs := shape.runs) is not None:
                place = f"{runs.height} {runs.width} {runs.by_column} {runs.left} {runs.top} "
                parts.update(place.encode() + runs.lengths.astype("<i8").tobytes())
        return parts.hexdigest()


@dataclass
class AnnotationSet:
    """Everything that the annotation files of one format say.

    classes: the names with their colours (None: no colour) in the order of their ids.  skipped: how many annotations of which
    kind are not regions.  lists_all: whether a picture that no file names was never looked at (False: it shows background).
    has_table: whether the files list the classes in an order; if not, names are sorted.  keypoints: whether the files hold
    keypoints and no regions.  rules: sentences on how this format is drawn, beyond those that hold for all.
    """

    title: str
    classes: dict[str, Color | None] = field(default_factory=dict)
    pictures: list[AnnotatedPicture] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    lists_all: bool = True
    has_table: bool = False
    keypoints: bool = False
    rules: list[str] = field(default_factory=list)

    def picture(self, names: Iterable[str], where: str, size: tuple[int, int] | None = None) -> AnnotatedPicture:
        found = AnnotatedPicture(tuple(dict.fromkeys(names)), where, size)
        self.pictures.append(found)
        return found

    def see_class(self, name: Any, color: Color | None = None) -> str:
        """The name of a class without surrounding spaces; it is added to the table. Raises ShapeError if it is not a name."""
        if not isinstance(name, str) or not name.strip() or not name.isprintable():
            raise ShapeError(f"has {shortly(name)} for its class, wanted a name")
        found = str(name).strip()
        if self.classes.get(found) is None:
            self.classes[found] = color
        return found

    def problem(self, sample: str, problem: str, hint: str) -> None:
        self.problems.append(Finding(sample, problem, hint))

    def add(self, picture: AnnotatedPicture, what: str, build: Callable[[], AnnotatedShape]) -> None:
        """Add the shape that `build` returns to the picture, or a problem. `what` names the annotation: "polygon 3"."""
        try:
            picture.add(build())
        except TooFewPointsError:
            self.skipped["polygons of fewer than 3 points"] += 1
        except ShapeError as error:
            self.problem(
                picture.called,
                f"{what} of '{picture.called}' in '{picture.where}' {error}",
                "correct or remove it in the tool that drew it, then export again",
            )
