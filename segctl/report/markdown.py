"""Content -> GitHub-flavoured Markdown."""

import re
from typing import assert_never
from urllib.parse import quote

from segctl.report.content import Block, Cell, Code, Definitions, Figure, Notes, Page, Paragraph, Section, Table


def render(page: Page) -> str:
    """The whole page."""
    parts = [f"# {_text(page.title)}", *map(_block, page.lead), *map(_section, page.sections)]
    return "\n\n".join(parts) + "\n"


def _section(section: Section) -> str:
    return "\n\n".join([f"{'#' * section.level} {_text(section.heading)}", *map(_block, section.blocks)])


def _block(block: Block) -> str:
    match block:
        case Table():
            return _table(block)
        case Paragraph(text):
            return _text(text)
        case Notes(items):
            return "\n".join(f"- {_text(item)}" for item in items)
        case Definitions(items):
            return "\n".join(f"- **{_text(term)}**: {_text(meaning)}" for term, meaning in items)
        case Figure(path, alt, caption):
            return f"![{_text(alt)}]({quote(path.as_posix())})\n\n*{_text(caption)}*"
        case Code(text):
            return f"```\n{text}\n```"
        case _:
            assert_never(block)


def _table(block: Table) -> str:
    """Padded, so that the source reads as a table too."""
    columns = [[_escaped(name), *(_cell(row[index]) for row in block.rows)] for index, name in enumerate(block.columns)]
    padded = [_column(column, right=right) for column, right in zip(columns, block.numeric, strict=True)]
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(*padded, strict=True))


def _column(cells: list[str], *, right: bool) -> list[str]:
    """Name, rule and cells of a column, all of one width."""
    width = max(3, *map(len, cells))
    rule = "-" * (width - 1) + (":" if right else "-")
    name, *rest = [cell.rjust(width) if right else cell.ljust(width) for cell in cells]
    return [name, rule, *rest]


def _cell(cell: Cell) -> str:
    text = _escaped(cell.text)
    return f"**{text}**" if cell.best else text


def _escaped(text: str) -> str:
    return _text(text).replace("|", "\\|").replace("\n", " ")


def _text(text: str) -> str:
    """Escape what Markdown would read as markup, outside `code`."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if index % 2 else re.sub(r"([*<\\]|\](?=[(\[]))", r"\\\1", piece) for index, piece in enumerate(pieces))
