"""What a report consists of, before it is Markdown: sections of blocks.

Text is plain, except that `backticks` mark code. A renderer decides how a block looks.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

UNDEFINED = "n/a"
NO_NUMBER = (UNDEFINED, "–", "not run", "none published")
"""Words that may stand in a column of numbers."""


@dataclass(frozen=True)
class Cell:
    """A table's cell; `best` cells are set off."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns. A column of numbers is right-aligned."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers, or words for a number that is missing."""
        columns = [[row[index].text for row in self.rows] for index in range(len(self.columns))]
        return tuple(all(map(_is_numeric, column)) and not set(column) <= set(NO_NUMBER) for column in columns)


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Notes:
    """Remarks below a table, one a line."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Definitions:
    """Terms and what they mean."""

    items: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Figure:
    """A picture beside the report: `path` is relative to it."""

    path: Path
    alt: str
    caption: str


@dataclass(frozen=True)
class Code:
    text: str


@dataclass(frozen=True)
class Worst:
    """One of a run's worst images: its score in percent and its tiles (`TILES` kind -> PNG file)."""

    image: str
    score: str
    tiles: Mapping[str, Path]


@dataclass(frozen=True)
class Gallery:
    """A run's worst images. On paper the first of them as one strip; where there is a mouse, each at its own size."""

    strip: Figure
    images: tuple[Worst, ...]
    legend: tuple[tuple[str, str], ...]
    """Class names and their colours, such as `#804080`."""


@dataclass(frozen=True)
class ImageColumn:
    """One run's (or its seeds' mean) scores of every image, in percent: mIoU_I, and IoU by class; None where undefined."""

    label: str
    miou_i: tuple[float | None, ...]
    iou: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class ImageTable:
    """Every image under every group. On paper the worst of them; where there is a mouse, all, to sort and filter."""

    images: tuple[str, ...]
    classes: tuple[str, ...]
    columns: tuple[ImageColumn, ...]


Words = Paragraph | Notes | Definitions | Code
Block = Words | Table | Figure | Gallery | ImageTable


@dataclass(frozen=True)
class Section:
    """A heading of level 2 or 3 and what stands under it."""

    heading: str
    blocks: tuple[Block, ...]
    level: int = 2


@dataclass(frozen=True)
class Page:
    title: str
    lead: tuple[Block, ...]
    sections: tuple[Section, ...]


def table(columns: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> Table:
    """A table from plain strings and cells."""
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return Table(tuple(columns), cells)


def _is_numeric(text: str) -> bool:
    return (
        text in NO_NUMBER
        or re.fullmatch(r"\[{N}, {N}\]|{N}( \[{N}, {N}\])?( [±×] \d[\d.,]*)?( †)?".replace("{N}", r"[-+]?\d[\d,]*(\.\d+)?"), text)
        is not None
    )
