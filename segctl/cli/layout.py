"""Lays out a table in a given width without cutting a word.

Tried in this order, until the table fits:
1. all columns, each as wide as its widest cell;
2. without the columns that the caller names as the least valuable, one after another;
3. cells wrapped at spaces, except in the first column, whose names stay whole;
4. rows and columns exchanged, which suits few rows of many numbers;
5. one block of `column  value` lines for each row, without empty cells.
In the last form a single word may be wider than the screen; it is printed whole.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len

GAP = "  "
INDENT = "  "

Row = Sequence[str]


@dataclass(frozen=True)
class Layout:
    """The lines of a table. left_out: the columns of step 2 that are not shown."""

    header: tuple[str, ...]
    body: tuple[str, ...]
    left_out: tuple[str, ...] = ()


def lay_out(columns: Row, rows: Sequence[Row], width: int, drop: Sequence[str] = ()) -> Layout:
    """The table as lines of at most `width` characters. drop: names of columns that may go, the least valuable first."""
    shown = list(range(len(columns)))
    left_out: list[int] = []
    while not _fits(_natural(columns, rows, shown), width):
        candidates = [columns.index(name) for name in drop if name in columns and columns.index(name) in shown]
        if not candidates:
            break
        shown.remove(candidates[0])
        left_out.append(candidates[0])
    # A wide column that went last may have made room for a narrow one that went before.
    for index in reversed(left_out):
        if _fits(_natural(columns, rows, more := sorted([*shown, index])), width):
            shown = more
    left_out = [index for index in left_out if index not in shown]
    some_columns = [columns[index] for index in shown]
    some_rows = [[row[index] for index in shown] for row in rows]
    widths = _narrowed(some_columns, some_rows, width)
    if widths is not None:
        return _grid(some_columns, some_rows, widths, tuple(columns[index] for index in sorted(left_out)))
    exchanged = [list(column) for column in zip(columns, *rows, strict=True)]
    header, *others = exchanged
    if len(rows) > 1 and _fits(_natural(header, others, range(len(header))), width):
        return _grid(header, others, _natural(header, others, range(len(header))), (), numbers_right=True)
    return Layout((), tuple(_stacked(columns, rows, width)))


def wrap(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` characters, broken only at spaces: a longer word gets a line of its own."""
    lines: list[str] = []
    for word in text.split(" "):
        if lines and cell_len(lines[-1]) + 1 + cell_len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def _natural(columns: Row, rows: Sequence[Row], shown: Sequence[int]) -> list[int]:
    """The width of the widest cell of each column that is shown."""
    return [max(cell_len(cell) for cell in (columns[index], *(row[index] for row in rows))) for index in shown]


def _fits(widths: Sequence[int], width: int) -> bool:
    return sum(widths) + len(GAP) * (len(widths) - 1) <= width


def _narrowed(columns: Row, rows: Sequence[Row], width: int) -> list[int] | None:
    """Widths of the columns that fit, with cells wrapped at spaces; None where even the longest words do not fit."""
    widths = _natural(columns, rows, range(len(columns)))
    least = [
        max(cell_len(word) for cell in (columns[index], *(row[index] for row in rows)) for word in cell.split(" "))
        for index in range(len(columns))
    ]
    least[0] = widths[0]
    while not _fits(widths, width):
        room = [index for index in range(len(widths)) if widths[index] > least[index]]
        if not room:
            return None
        # The widest column gives way first, so that a long text is wrapped before a short one.
        widths[max(room, key=lambda index: widths[index])] -= 1
    return widths


def _grid(
    columns: Row, rows: Sequence[Row], widths: Sequence[int], left_out: tuple[str, ...], *, numbers_right: bool = False
) -> Layout:
    right = [index > 0 and (numbers_right or all(_is_number(row[index]) for row in rows)) for index in range(len(columns))]
    header, *body = [_row_lines(row, widths, right) for row in (columns, *rows)]
    return Layout(tuple(header), tuple(line for lines in body for line in lines), left_out)


def _row_lines(row: Row, widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    """The lines of one row; cells of several lines begin on the first."""
    cells = [wrap(cell, width) for cell, width in zip(row, widths, strict=True)]
    lines = []
    for number in range(max(map(len, cells))):
        texts = [cell[number] if number < len(cell) else "" for cell in cells]
        parts = [_padded(*how) for how in zip(texts, widths, right, strict=True)]
        lines.append(GAP.join(parts).rstrip())
    return lines


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space


def _stacked(columns: Row, rows: Sequence[Row], width: int) -> list[str]:
    names = max((cell_len(name) for name in columns[1:]), default=0)
    lines: list[str] = []
    for row in rows:
        lines += [*([""] if lines else []), row[0]]
        for name, cell in zip(columns[1:], row[1:], strict=True):
            if not cell:
                continue
            head = f"{INDENT}{_padded(name, names, False)}{GAP}"
            first, *others = wrap(cell, max(1, width - cell_len(head)))
            lines += [f"{head}{first}".rstrip(), *(" " * cell_len(head) + other for other in others)]
    return lines


def _is_number(cell: str) -> bool:
    """Whether a cell is a number, a range `1.0-2.0`, `1.0 ± 0.1`, `[-1.0, +2.0]`, or a word for a missing number."""
    number = r"[-+]?\d[\d,]*(\.\d+)?(e[-+]\d+)?"
    return cell in ("", "n/a", "–", "-") or (
        re.fullmatch(rf"{number}(-{number}| ± {number}|%| %)?|\[{number}, {number}\]", cell) is not None
    )
