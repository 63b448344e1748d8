"""Content -> GitHub-flavoured Markdown."""

import os
import re
import statistics
from typing import assert_never
from urllib.parse import quote

from segctl.errors import NEWLINE, printable
from segctl.report.content import (
    Album,
    Cell,
    Code,
    Definitions,
    Figure,
    Gallery,
    ImageTable,
    Notes,
    Page,
    PageBlock,
    Paragraph,
    PictureRow,
    Section,
    Table,
    Tiles,
    Words,
    table,
)

IMAGES_SHOWN = 10


def render_markdown(page: Page) -> str:
    """The whole page."""
    parts = [f"# {_text(page.title)}", *map(_block, page.lead), *map(_section, page.sections)]
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> str:
    return "\n\n".join([f"{'#' * section.level} {_text(section.heading)}", *map(_block, section.blocks)])


def _block(block: PageBlock) -> str:
    match block:
        case Table():
            return _table(block)
        case Figure():
            return _figure(block)
        case Gallery(strip):
            return _figure(strip)
        case ImageTable():
            return _images(block)
        case Album():
            return _text(
                f"The web page beside this file shows {len(block.pictures):,} of {block.images:,} images with the predictions of "
                f"{len(block.runs)} {'run' if len(block.runs) == 1 else 'runs'}."
            )
        case Tiles():
            return _tiles(block)
        case PictureRow(strip):
            return _figure(strip)
        case _:
            return _words(block)


def _words(block: Words) -> str:
    match block:
        case Paragraph(text):
            return _text(text)
        case Notes(items):
            return "\n".join(f"- {_text(item)}" for item in items)
        case Definitions(items):
            return "\n".join(f"- **{_text(term)}**: {_text(meaning)}" for term, meaning in items)
        case Code(text):
            # A fence longer than any in the text, which a command may hold.
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
            return f"{fence}\n{printable(text, keep=NEWLINE)}\n{fence}"
        case _:
            assert_never(block)


def _figure(figure: Figure) -> str:
    return f"![{_text(figure.alt)}]({quote(os.fsencode(figure.path.as_posix()))})\n\n*{_text(figure.caption)}*"


def _tiles(block: Tiles) -> str:
    """One row per network: what it is, its score, and the facts that any of them has."""
    names = list(dict.fromkeys(name for tile in block.tiles for name, _ in tile.facts))
    rows = [
        [tile.role, tile.name, tile.score, tile.note, *(dict(tile.facts).get(name, "–") for name in names)]
        for tile in block.tiles
    ]
    parts = [_table(table(("role", "network", "mIoU_D, %", "how", *names), rows))]
    if block.gain:
        parts.append(f"**{_text(block.gain)}.** {_text(block.meaning)}")
    elif block.meaning:
        parts.append(_text(block.meaning))
    return "\n\n".join(parts)


def _images(block: ImageTable) -> str:
    """The images with the lowest mean over the groups; the web page has all images."""
    means = {name: [column.miou_i[index] for column in block.columns] for index, name in enumerate(block.images)}
    known = {name: [value for value in values if value is not None] for name, values in means.items()}
    worst = sorted((name for name in known if known[name]), key=lambda name: (statistics.fmean(known[name]), name))[:IMAGES_SHOWN]
    rows = [[name, *("n/a" if value is None else f"{value:.2f}" for value in means[name])] for name in worst]
    shown = _table(table(("image, mIoU_I", *(column.label for column in block.columns)), rows))
    rest = f"The worst {len(worst)} of {len(block.images):,} images; the web page beside this file has all, with their classes."
    return f"{shown}\n\n{_text(rest)}"


def _table(block: Table) -> str:
    """A table with padded cells, so that the source can be read as well."""
    columns = [[_escaped(name), *(_cell(row[index]) for row in block.rows)] for index, name in enumerate(block.columns)]
    padded = [_column(column, right=right) for column, right in zip(columns, block.numeric, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(*padded, strict=True))


def _column(cells: list[str], *, right: bool) -> list[str]:
    """Name, rule and cells of a column, padded to one width."""
    width = max(3, *map(len, cells))
    rule = "-" * (width - 1) + (":" if right else "-")
    name, *rest = [cell.rjust(width) if right else cell.ljust(width) for cell in cells]
    return [name, rule, *rest]


def _cell(cell: Cell) -> str:
    text = _escaped(cell.text)
    return f"**{text}**" if cell.best else text


def _escaped(text: str) -> str:
    return _text(text).replace("|", "\\|")


def _text(text: str) -> str:
    """One line of text, in which what Markdown would read as markup is escaped, except for `code`.

    A blank line would end the paragraph and with it the code, and a backtick beside the code would change where it ends.
    """
    pieces = re.split(r"((?<!`)`[^`]+`(?!`))", printable(re.sub(r"\s*\n\s*", " ", text)))
    return "".join(piece if index % 2 else re.sub(r"([*<\\`]|\](?=[(\[]))", r"\\\1", piece) for index, piece in enumerate(pieces))
