"""Content -> one web page with pictures, style and script inside, so that it opens from a file, offline."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any, assert_never

from segctl.errors import NEWLINE, printable
from segctl.report.content import (
    Album,
    Cell,
    Code,
    Definitions,
    Figure,
    Gallery,
    ImageColumn,
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
)
from segctl.report.figures import LINE_COLORS, color_of

CRISP_PX = 400
"""Pictures of at most this width are enlarged on the page, pixel by pixel."""


def render_html(page: Page, folder: Path) -> str:
    """The whole page. folder: where the paths of figures begin.

    The page's content security policy names its one style and its one script by hash, and lets nothing else run or be fetched.
    """
    writer = _Writer(folder)
    lead = "\n".join(writer.block(block) for block in page.lead)
    sections = "\n".join(writer.section(section) for section in page.sections)
    links = "".join(
        f'<li><a href="#{_anchor(section.heading)}">{_text(section.heading)}</a></li>'
        for section in page.sections
        if section.level == 2
    )
    style = f"\n{_asset('page.css')}"
    parts = f"{_asset('explorer/explorer.js')}\n{_asset('page.js')}"
    script = f'\n"use strict";\n(() => {{\n{parts}}})();\n'
    own = f"style-src {_hash(style)}; script-src {_hash(script)}"
    policy = f"default-src 'none'; img-src data:; {own}; base-uri 'none'; form-action 'none'"
    return "".join(
        [
            _HEAD.format(
                title=escape(printable(page.title)), style=style, policy=policy, links=links, lead=lead, sections=sections
            ),
            writer.data(),
            f"<script>{script}</script>\n",
            *writer.pictures(),
            "</body>\n</html>\n",
        ]
    )


_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main>
<h1>{title}</h1>
{lead}
{sections}
</main>
"""


class _Writer:
    """Turns blocks into HTML, and collects the data that the script shows: scores and pictures, each stored once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._scores: list[ImageTable] = []
        self._albums: list[Album] = []
        self._contents: list[Any] = []
        self._place = ""

    def section(self, section: Section) -> str:
        anchor = f' id="{_anchor(section.heading)}"' if section.level == 2 else ""
        heading = f"<h{section.level}{anchor}>{_text(section.heading)}</h{section.level}>"
        return "\n".join([heading, *map(self.block, section.blocks)])

    def block(self, block: PageBlock) -> str:
        match block:
            case Table():
                return _table(block)
            case Figure():
                return self._figure(block)
            case Gallery():
                return self._gallery(block)
            case ImageTable():
                return self._images(block)
            case Album():
                return self._album(block)
            case Tiles():
                return _tiles(block)
            case PictureRow():
                return _row(block)
            case _:
                return _words(block)

    def _figure(self, figure: Figure) -> str:
        caption = f"<figcaption>{_text(figure.caption)}</figcaption>"
        content = (self._folder / figure.path).read_bytes()
        if figure.path.suffix == ".svg":
            drawn = content.decode("utf-8").replace("<svg ", f'<svg role="img" aria-label="{escape(printable(figure.alt))}" ', 1)
            return f'<figure class="chart"><div class="wide">{drawn}</div>{caption}</figure>'
        picture = f'<img alt="{escape(printable(figure.alt))}" src="data:image/png;base64,{base64.b64encode(content).decode()}">'
        return f"<figure>{picture}{caption}</figure>"

    def _gallery(self, gallery: Gallery) -> str:
        """The worst images as links into the explorer, if it has them; else, and without scripts, the strip."""
        kept = next((album for album in self._albums if album.place == gallery.place), None)
        names = set() if kept is None else {picture.name for picture in kept.pictures}
        if not any(worst.image in names for worst in gallery.images):
            return self._figure(gallery.strip)
        links = [[worst.image, worst.score] for worst in gallery.images]
        number = self._content({"images": links, "place": gallery.place, "run": gallery.run})
        return f'<div class="worst" data-content="{number}"><noscript>{self._figure(gallery.strip)}</noscript></div>'

    def _images(self, block: ImageTable) -> str:
        place = next((album.place for album in self._albums if album.scores is block), "")
        empty = "<noscript><p>Sorting and filtering need JavaScript; per_image.csv has the same numbers.</p></noscript>"
        number = self._number_of(block)
        return f'<div class="images" data-scores="{number}" data-place="{escape(printable(place))}">{empty}</div>'

    def _album(self, album: Album) -> str:
        self._albums.append(album)
        content = {
            "id": len(self._albums),
            "place": printable(album.place),
            "runs": album.runs,
            "classes": album.classes,
            "pictures": [
                [picture.name, picture.width, picture.height, "".join("01"[each is not None] for each in picture.predictions)]
                for picture in album.pictures
            ],
            "images": album.images,
            "scores": None if album.scores is None else self._number_of(album.scores),
            "pair": album.pair,
        }
        size = f"{album.bytes * 4 / 3 / 1e6:,.1f} MB of this page, at most {album.longest_px:,} pixels on the longer side"
        more = " `--pictures all` keeps all, `--pictures 0` none." if album.from_dataset else ""
        said = f"{len(album.pictures):,} of {album.images:,} images: {size}.{more}"
        empty = "<noscript><p>The explorer needs JavaScript.</p></noscript>"
        return f'<div class="explorer" data-content="{self._content(content)}">{empty}</div><p class="hint">{_text(said)}</p>'

    def _number_of(self, scores: ImageTable) -> int:
        """The number of a table of scores, which the explorer and the table of images share."""
        if not any(scores is known for known in self._scores):
            self._scores.append(scores)
        return next(number for number, known in enumerate(self._scores) if known is scores)

    def _content(self, content: Any) -> int:
        self._contents.append(content)
        return len(self._contents)

    def data(self) -> str:
        """Everything that the script needs at once."""
        parts = [_data("colors", LINE_COLORS)]
        parts += [_data(f"scores-{number}", _scores(scores)) for number, scores in enumerate(self._scores)]
        parts += [_data(f"content-{number}", content) for number, content in enumerate(self._contents, 1)]
        return "\n".join(parts)

    def pictures(self) -> Iterator[str]:
        """The pictures of all albums, each in an element of its own, which the script reads when it is shown."""
        for number, album in enumerate(self._albums, 1):
            for index, picture in enumerate(album.pictures):
                parts = [picture.jpeg, picture.truth, *(each or b"" for each in picture.predictions)]
                text = "|".join(base64.b64encode(part).decode() for part in parts)
                yield f'<script type="text/plain" id="picture-{number}-{index}">{text}</script>\n'
        yield '<script type="text/plain" id="end"></script>\n'


def _scores(block: ImageTable) -> dict[str, Any]:
    """The scores of all images as the script reads them. A run alone in its group has the numbers of its column."""

    def numbers(column: ImageColumn) -> dict[str, Any]:
        return {
            "label": column.label,
            "position": column.position,
            "mIoU_I": [_rounded(value) for value in column.miou_i],
            "IoU": [[_rounded(value) for value in row] for row in column.iou],
            "more": {name: [_rounded(value) for value in values] for name, values in column.more.items()},
        }

    members = [run.group for run in block.runs]
    return {
        "images": block.images,
        "classes": block.classes,
        "columns": [numbers(column) for column in block.columns],
        "runs": [
            {"label": run.label, "position": run.position, "group": run.group}
            if members.count(run.group) == 1
            else numbers(run) | {"group": run.group}
            for run in block.runs
        ],
    }


def _tiles(block: Tiles) -> str:
    tiles = "".join(
        f'<div class="tile"><h4>{_dot(tile.position)}{_text(tile.role)} <span>{_text(tile.name)}</span></h4>'
        f'<div class="score">{_text(tile.score)} <small>mIoU_D, %</small></div><p>{_text(tile.note)}</p>'
        f"<dl>{''.join(f'<div><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>' for name, value in tile.facts)}</dl></div>"
        for tile in block.tiles
    )
    gain = f"<strong>{_text(block.gain)}.</strong> " if block.gain else ""
    words = f'<p class="gain">{gain}{_text(block.meaning)}</p>' if gain or block.meaning else ""
    return f'<div class="tiles">{tiles}</div>{words}'


def _row(block: PictureRow) -> str:
    crisp = ' class="crisp"' if block.width <= CRISP_PX else ""
    tiles = "".join(
        f'<figure><img{crisp} alt="{escape(printable(tile.label))}" src="{tile.uri}">'
        f"<figcaption>{_text(tile.label)}</figcaption></figure>"
        for tile in block.tiles
    )
    legend = "".join(f"<span>{_swatch(color)}{_text(name)}</span>" for name, color in block.legend)
    return f'<div class="row">{tiles}</div><p>{_text(block.strip.caption)}</p><div class="legend">{legend}</div>'


def _dot(position: int) -> str:
    color = "#888888" if position < 0 else color_of(position)
    return f'<svg viewBox="0 0 10 10" aria-hidden="true"><circle cx="5" cy="5" r="5" fill="{color}"/></svg>'


def _swatch(color: str) -> str:
    return f'<svg viewBox="0 0 10 10" aria-hidden="true"><rect width="10" height="10" fill="{escape(color)}"/></svg>'


def _hash(text: str) -> str:
    """The text of an inline element as a source of the content security policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _data(name: str, content: Any) -> str:
    """Data for the script. `<` is escaped, so that no text in the data can end the element."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    # Halves of characters cannot be written as UTF-8; as an escape they are valid JSON.
    text = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _words(block: Words) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{_text(text)}</p>"
        case Notes(items):
            return f'<ul class="notes">{"".join(f"<li>{_text(item)}</li>" for item in items)}</ul>'
        case Definitions(items):
            return f"<dl>{''.join(f'<dt>{_text(term)}</dt><dd>{_text(meaning)}</dd>' for term, meaning in items)}</dl>"
        case Code(text):
            return f"<pre><code>{escape(printable(text, keep=NEWLINE))}</code></pre>"
        case _:
            assert_never(block)


def _table(block: Table) -> str:
    numeric = block.numeric
    head = "".join(f"<th{_side(right)}>{_text(name)}</th>" for name, right in zip(block.columns, numeric, strict=True))
    rows = "".join(
        f"<tr>{''.join(f'<td{_side(right)}>{_cell(cell)}</td>' for cell, right in zip(row, numeric, strict=True))}</tr>"
        for row in block.rows
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def _side(right: bool) -> str:
    return ' class="number"' if right else ""


def _cell(cell: Cell) -> str:
    return f"<strong>{_text(cell.text)}</strong>" if cell.best else _text(cell.text)


def _text(text: str) -> str:
    pieces = re.split(r"`([^`]*)`", printable(text, keep=NEWLINE))
    return "".join(f"<code>{escape(piece)}</code>" if index % 2 else escape(piece) for index, piece in enumerate(pieces))


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


def _asset(name: str) -> str:
    return (files("segctl.report") / name).read_text(encoding="utf-8")
