"""The content of a report, independent of its format: a page of sections of blocks.

Text is plain, except that `backticks` mark code. The renderers (markdown.py, html.py) decide how a block looks.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

UNDEFINED = "n/a"
NO_NUMBER = (UNDEFINED, "–", "not run", "none published")
"""Words that a column of numbers may contain."""


@dataclass(frozen=True)
class Cell:
    """A cell of a table; `best` cells are bold."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells. Columns of numbers are right-aligned."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Which columns hold numbers, or words for missing numbers."""
        columns = [[row[index].text for row in self.rows] for index in range(len(self.columns))]
        return tuple(all(map(_is_numeric, column)) and not set(column) <= set(NO_NUMBER) for column in columns)


@dataclass(frozen=True)
class Paragraph:
    text: str


@dataclass(frozen=True)
class Notes:
    """Notes below a table, one per line."""

    items: tuple[str, ...]


@dataclass(frozen=True)
class Definitions:
    """Terms with their meaning."""

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
    """One of the worst images of a run: its score in percent and its tiles (kind in `TILES` -> PNG file)."""

    image: str
    score: str
    tiles: Mapping[str, Path]


@dataclass(frozen=True)
class Gallery:
    """The worst images of a run: the first of them as one strip in Markdown, each at its own size on the web page."""

    strip: Figure
    images: tuple[Worst, ...]
    legend: tuple[tuple[str, str], ...]
    """Class names and their colours, such as `#804080`."""


@dataclass(frozen=True)
class ImageColumn:
    """The scores of every image in one group (mean over seeds), in percent: mIoU_I, and IoU by class; None where undefined."""

    label: str
    miou_i: tuple[float | None, ...]
    iou: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class ImageTable:
    """The scores of every image in every group: the worst of them in Markdown; all, to sort and filter, on the web page."""

    images: tuple[str, ...]
    classes: tuple[str, ...]
    columns: tuple[ImageColumn, ...]


Words = Paragraph | Notes | Definitions | Code
PageBlock = Words | Table | Figure | Gallery | ImageTable


@dataclass(frozen=True)
class Section:
    """A heading of level 2 or 3 and the blocks under it."""

    heading: str
    blocks: tuple[PageBlock, ...]
    level: int = 2


@dataclass(frozen=True)
class Page:
    title: str
    lead: tuple[PageBlock, ...]
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
