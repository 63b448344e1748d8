"""Content -> GitHub-flavoured Markdown."""

import re
from typing import assert_never

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
            return f"![{_text(alt)}]({path.as_posix().replace(' ', '%20')})\n\n*{_text(caption)}*"
        case Code(text):
            return f"```\n{text}\n```"
        case _:
            assert_never(block)


def _table(block: Table) -> str:
    """Padded, so that the source reads as a table too."""
    rows = [[_cell(Cell(column)) for column in block.columns], *([_cell(cell) for cell in row] for row in block.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*rows, strict=True)]
    rule = [_rule(width, right=index >= block.numeric_from) for index, width in enumerate(widths)]
    padded = [
        [_pad(text, width, index >= block.numeric_from) for index, (text, width) in enumerate(zip(row, widths, strict=True))]
        for row in rows
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in [padded[0], rule, *padded[1:]])


def _rule(width: int, *, right: bool) -> str:
    return "-" * (width - 1) + (":" if right else "-")


def _pad(text: str, width: int, right: bool) -> str:
    return text.rjust(width) if right else text.ljust(width)


def _cell(cell: Cell) -> str:
    text = _text(cell.text).replace("|", "\\|").replace("\n", " ")
    return f"**{text}**" if cell.best else text


def _text(text: str) -> str:
    """Escape what Markdown would read as markup, outside `code`."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(
        piece if piece.startswith("`") and len(piece) > 1 else re.sub(r"([*<\[\]])", r"\\\1", piece) for piece in pieces
    )
