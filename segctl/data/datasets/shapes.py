"""`shapes`: small pictures of geometric things, drawn by code from a seed, so that nothing has to be downloaded.

They have big and tiny objects, common and rare classes, colours that overlap and sometimes mislead, textured ground, and a
one-pixel ignored border around every object. The code uses only integer arithmetic on the raw bits of PCG64, whose stream NumPy
guarantees, so every machine draws the same bytes. Directions are Pythagorean triples, so a rotation needs whole numbers only.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from segctl.data.classes import ClassRow, ClassTable
from segctl.data.source import RawSample, Source
from segctl.errors import InputError
from segctl.ignored import IGNORED

CLASSES = ClassTable(
    (
        ClassRow("background", 0, 0, (40, 44, 52)),
        ClassRow("circle", 1, 1, (230, 80, 70)),
        ClassRow("square", 2, 2, (70, 130, 220)),
        ClassRow("triangle", 3, 3, (90, 190, 110)),
        ClassRow("ring", 4, 4, (240, 160, 60)),
        ClassRow("star", 5, 5, (250, 225, 90)),
        ClassRow("line", 6, 6, (170, 110, 210)),
        ClassRow("dot", 7, 7, (110, 220, 220)),
        ClassRow("border", IGNORED, IGNORED, (0, 0, 0)),
    )
)
LAYOUT = ""
SPLIT_SIZES = {"train": 240, "val": 60}
SIZES = ((128, 160), (112, 144), (144, 176))
"""(H, W) in pixels; a picture has one of them."""
_SEED = 2024
DIRECTIONS = ((1, 0, 1), (4, 3, 5), (3, 4, 5), (12, 5, 13), (5, 12, 13), (15, 8, 17), (8, 15, 17), (21, 20, 29), (20, 21, 29))
"""(u, v, norm) with u² + v² = norm²."""
PAINT = {
    "circle": (210, 60, 50),
    "ring": (225, 125, 40),
    "square": (40, 90, 210),
    "triangle": (40, 170, 80),
    "star": (230, 210, 40),
    "line": (170, 60, 190),
    "dot": (60, 220, 220),
}
"""The usual colour of an object of a class. It varies: those of circle and ring overlap, so only the shape tells them apart."""
RECIPE = (
    # class, drawn in this share of the pictures (percent), at most how many, smallest and largest radius in pixels
    ("square", 60, 2, 10, 48),
    ("circle", 60, 2, 8, 42),
    ("triangle", 60, 2, 12, 50),
    ("ring", 45, 2, 12, 40),
    ("line", 50, 3, 20, 70),
    ("star", 30, 2, 14, 40),
    ("dot", 60, 8, 3, 5),
)
"""Objects are painted in this order, later ones over earlier ones."""

Choice = TypeVar("Choice")
_TRAIN_IDS = {row.name: row.train_id for row in CLASSES.rows}


def open_shapes(paths: Sequence[Path]) -> Source:
    """The drawn dataset. Raises InputError if files are given for it."""
    if paths:
        raise InputError(f"'shapes' is drawn by segctl, but --source is '{paths[0]}'", "leave --source out")
    return Source(
        name="shapes",
        rule=f"shapes/1 seed {_SEED}",
        origin="drawn by segctl",
        decoder="none",
        classes=CLASSES,
        splits={split: [f"{split}-{index:04d}" for index in range(count)] for split, count in SPLIT_SIZES.items()},
        samples=Drawings(),
    )


@dataclass(frozen=True)
class Drawings:
    """Draws samples by their names."""

    def size(self, name: str) -> tuple[int, int]:
        return _Dice(name).one_of(SIZES)

    def digest(self, name: str) -> str:
        return self.read(name).source_sha256

    def read(self, name: str) -> RawSample:
        image, label = draw(name)
        digest = hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()
        return RawSample(name, image, label, None, digest, image.nbytes + label.nbytes)


class _Dice:
    """Random whole numbers from the raw PCG64 stream of one sample."""

    def __init__(self, name: str) -> None:
        split, index = name.rsplit("-", 1)
        self._bits = np.random.PCG64(np.random.SeedSequence([_SEED, list(SPLIT_SIZES).index(split), int(index)]))

    def between(self, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self._bits.random_raw()) % (high - low + 1)

    def one_of(self, choices: tuple[Choice, ...]) -> Choice:
        return choices[self.between(0, len(choices) - 1)]

    def chance(self, percent: int) -> bool:
        return self.between(0, 99) < percent

    def array(self, *shape: int) -> np.ndarray:
        """int32 of the given shape, each value from 0 to 255."""
        count = int(np.prod(shape))
        raw = self._bits.random_raw(-(-count // 8)).astype("<u8")
        return raw.view(np.uint8)[:count].reshape(shape).astype(np.int32)


def draw(name: str) -> tuple[np.ndarray, np.ndarray]:
    """image uint8 (H, W, 3) and label uint8 (H, W) of a sample, whose name is like `train-0003`."""
    dice = _Dice(name)
    height, width = dice.one_of(SIZES)
    image = _ground(dice, height, width)
    label = np.zeros((height, width), np.uint8)
    for kind, percent, most, smallest, largest in RECIPE:
        if not dice.chance(percent):
            continue
        for _ in range(dice.between(1, most)):
            radius = smallest + (largest - smallest) * dice.between(0, 99) * dice.between(0, 99) // 9801
            _paint(dice, image, label, kind, radius)
    image = image * dice.between(75, 115) // 100 + (dice.array(height, width, 3) - 128) * dice.between(4, 10) // 100
    return np.clip(image, 0, 255).astype(np.uint8), label


def _ground(dice: _Dice, height: int, width: int) -> np.ndarray:
    """int32 (H, W, 3), about 0 to 255: a coarse random grid, interpolated in steps of 1/256, with grain."""
    rows, columns = dice.between(3, 7), dice.between(3, 7)
    shade = 70 + dice.array(rows, columns, 1) * 70 // 255
    grid = shade + dice.array(1, 1, 3) * 30 // 255 + dice.array(rows, columns, 3) * 30 // 255
    y, x = np.arange(height) * (rows - 1) * 256 // height, np.arange(width) * (columns - 1) * 256 // width
    top, left = y // 256, x // 256
    down, right = (y % 256)[:, None, None], (x % 256)[None, :, None]
    upper = grid[top][:, left] * (256 - right) + grid[top][:, left + 1] * right
    lower = grid[top + 1][:, left] * (256 - right) + grid[top + 1][:, left + 1] * right
    grain = (dice.array(height, width, 1) - 128) * 12 // 100
    return np.asarray(((upper * (256 - down) + lower * down) // 65536 + grain).astype(np.int32))


def _paint(dice: _Dice, image: np.ndarray, label: np.ndarray, kind: str, radius: int) -> None:
    """Paint one object with its ignored border, at a random place and angle, into image int32 (H, W, 3) and label uint8 (H, W).

    Only the window around the object is computed.
    """
    height, width = label.shape
    y, x = dice.between(2, height - 3), dice.between(2, width - 3)
    reach = 3 * radius // 2 + 2
    window = slice(max(0, y - reach), y + reach + 1), slice(max(0, x - reach), x + reach + 1)
    dy, dx = np.ogrid[window[0].start - y : min(height, window[0].stop) - y, window[1].start - x : min(width, window[1].stop) - x]
    u, v, norm = dice.one_of(DIRECTIONS)
    inside = _form(kind, radius * norm, u * dx + v * dy, u * dy - v * dx, norm * dice.between(1, 3))
    image[window][inside] = _surface(dice, kind, dy, dx)[inside]
    label[window][_grown(inside) & ~inside] = IGNORED
    label[window][inside] = _TRAIN_IDS[kind]


def _surface(dice: _Dice, kind: str, dy: np.ndarray, dx: np.ndarray) -> np.ndarray:
    """int (h, w, 3): the striped paint of one object; one object in ten has a random colour."""
    tint = dice.array(3)
    paint = 40 + tint * 180 // 255 if dice.chance(10) else np.array(PAINT[kind]) + (tint - 128) * 30 // 100
    u, v, norm = dice.one_of(DIRECTIONS)
    stripes = (dx * u + dy * v) // norm % dice.between(4, 12) * dice.between(0, 5)
    return np.asarray(paint + stripes[..., None])


def _form(kind: str, reach: int, p: np.ndarray, q: np.ndarray, thickness: int) -> np.ndarray:
    """bool (h, w): where an object of that class lies. p, q are coordinates around its centre, in the unit of `reach`."""
    from_centre = p * p + q * q
    match kind:
        case "circle" | "dot":
            inside = from_centre <= reach * reach
        case "ring":
            inside = (from_centre <= reach * reach) & (100 * from_centre > 30 * reach * reach)
        case "square":
            inside = np.maximum(abs(p), abs(q)) <= reach
        case "triangle":
            inside = _triangle(p, q, reach)
        case "star":
            inside = _triangle(p, q, reach) | _triangle(p, -q, reach)
        case _:
            inside = (abs(p) <= reach) & (abs(q) <= thickness)
    return np.asarray(inside)


def _triangle(p: np.ndarray, q: np.ndarray, reach: int) -> np.ndarray:
    """bool (h, w): an equilateral triangle, `reach` from centre to corner; 1773/1024 stands for the square root of 3."""
    return np.asarray((2 * q <= reach) & (abs(1773 * p) - 1024 * q <= 1024 * reach))


def _grown(mask: np.ndarray) -> np.ndarray:
    """bool (h, w): the mask and its neighbours on all eight sides."""
    tall = mask.copy()
    tall[1:] |= mask[:-1]
    tall[:-1] |= mask[1:]
    grown = tall.copy()
    grown[:, 1:] |= tall[:, :-1]
    grown[:, :-1] |= tall[:, 1:]
    return grown
