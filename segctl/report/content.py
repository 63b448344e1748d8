"""What a report consists of, before it is Markdown: sections of blocks.

Text is plain, except that `backticks` mark code. A renderer decides how a block looks.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

NO_NUMBER = ("n/a", "–", "not run", "none published")
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


def table(columns: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> Table:
    """A table from plain strings and cells."""
    cells = tuple(tuple(cell if isinstance(cell, Cell) else Cell(cell) for cell in row) for row in rows)
    return Table(tuple(columns), cells)


def _is_numeric(text: str) -> bool:
    return text in NO_NUMBER or re.fullmatch(r"[-+]?\d[\d,]*(\.\d+)?( [±×] \d[\d.,]*)?( †)?", text) is not None
