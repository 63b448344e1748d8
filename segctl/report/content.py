"""What a report consists of, before it is Markdown: sections of blocks.

Text is plain, except that `backticks` mark code. A renderer decides how a block looks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Cell:
    """A table's cell; `best` cells are set off."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells under columns; columns from `numeric_from` on are right-aligned."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    numeric_from: int = 1


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


Block = Table | Paragraph | Notes | Definitions | Figure | Code


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


def table(columns: Sequence[str], rows: Sequence[Sequence[str | Cell]], numeric_from: int = 1) -> Table:
    """A table from plain strings and cells."""
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return Table(tuple(columns), cells, numeric_from)
