"""The content of a report, independent of its format: a page of sections of blocks.

Text is plain, except that `backticks` mark code. The renderers (markdown.py, html.py) decide how a block looks.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
    """One of the worst images of a run and its score in percent."""

    image: str
    score: str


@dataclass(frozen=True)
class Gallery:
    """The worst images of a run: the first of them as one strip; on the web page also as links into the explorer of `place`.

    run: the label of the run, by whose scores the explorer sorts.
    """

    strip: Figure
    images: tuple[Worst, ...]
    place: str
    run: str


@dataclass(frozen=True)
class ImageColumn:
    """The scores of every image in one group (mean over seeds) or one run, in percent; None where undefined.

    position: the group's place among all groups, which gives it its colour.  group: for a run, the place of its group in
    `ImageTable.columns`; -1 where none.  more: other scores of an image by name.
    """

    label: str
    miou_i: tuple[float | None, ...]
    iou: tuple[tuple[float | None, ...], ...]
    position: int = 0
    group: int = -1
    more: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageTable:
    """The scores of every image in every group: the worst of them in Markdown; all, to sort and filter, on the web page.

    columns: one for each group.  runs: one for each run, for the explorer.
    """

    images: tuple[str, ...]
    classes: tuple[str, ...]
    columns: tuple[ImageColumn, ...]
    runs: tuple[ImageColumn, ...] = ()


@dataclass(frozen=True)
class AlbumPicture:
    """An image with its label map and a run's label maps, packed.

    jpeg: the image, at most `Album.longest_px` on its longer side.  truth, predictions: label maps of the same size, packed by
    `report.explorer.album.pack_map`; None for a run without a prediction of this image.
    """

    name: str
    width: int
    height: int
    jpeg: bytes
    truth: bytes
    predictions: tuple[bytes | None, ...]


@dataclass(frozen=True)
class Album:
    """Pictures of one split with the predictions of all runs, for the explorer.

    place: the comparison's.  runs: label and position of each prediction.  classes: name and colour, such as `#804080`, in the
    order of ids; ids after them and 255 are ignored.  scores: of all images, so that pictures can be sorted by them.
    pair: the two runs by whose difference the pictures are sorted at first, the subtracted one last.
    from_dataset: whether the pictures are any of the split, and not only those that `segctl eval` drew.
    """

    place: str
    runs: tuple[tuple[str, int], ...]
    classes: tuple[tuple[str, str], ...]
    pictures: tuple[AlbumPicture, ...]
    longest_px: int
    images: int
    scores: ImageTable | None = None
    pair: tuple[int, int] | None = None
    from_dataset: bool = True

    @property
    def bytes(self) -> int:
        """The size of all pictures, packed."""
        return sum(
            len(picture.jpeg) + len(picture.truth) + sum(len(each) for each in picture.predictions if each is not None)
            for picture in self.pictures
        )


@dataclass(frozen=True)
class Tile:
    """One of the numbers on the first screen: a role, the name of the network, its score, and facts by name."""

    role: str
    name: str
    score: str
    note: str
    facts: tuple[tuple[str, str], ...]
    position: int


@dataclass(frozen=True)
class Tiles:
    """The tiles of the first screen, and how many points distillation gained, in words; `gain` may be empty."""

    tiles: tuple[Tile, ...]
    gain: str
    meaning: str


@dataclass(frozen=True)
class RowTile:
    """A picture of the row on the first screen, as a data URI."""

    label: str
    uri: str


@dataclass(frozen=True)
class PictureRow:
    """Image, truth and predictions side by side: one picture in Markdown, single ones on the web page."""

    strip: Figure
    tiles: tuple[RowTile, ...]
    legend: tuple[tuple[str, str], ...]
    width: int


Words = Paragraph | Notes | Definitions | Code
PageBlock = Words | Table | Figure | Gallery | ImageTable | Album | Tiles | PictureRow


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
