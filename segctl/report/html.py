"""Content -> one web page with pictures, style and script inside, so that it opens from a file, offline."""

import base64
import io
import json
import re
from collections.abc import Iterator
from html import escape
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any, assert_never

from segctl.data.files.archives import PlainFile
from segctl.data.files.pictures import read_image
from segctl.errors import NEWLINE, printable
from segctl.report.content import (
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
    Section,
    Table,
    Words,
)

WEB_TILE_PX = 1024
"""The longer side of an embedded tile, at most."""

PHOTOGRAPHS = ("image", "error")
"""Tiles that are embedded as JPEG. The others show class colours, which JPEG would change."""


def render_html(page: Page, folder: Path) -> str:
    """The whole page. folder: where the paths of figures begin."""
    writer = _Writer(folder)
    sections = "\n".join(writer.section(section) for section in page.sections)
    lead = "\n".join(writer.block(block) for block in page.lead)
    links = "".join(
        f'<li><a href="#{_anchor(section.heading)}">{_text(section.heading)}</a></li>'
        for section in page.sections
        if section.level == 2
    )
    return _PAGE.format(
        title=escape(page.title),
        style=_asset("page.css"),
        script=_asset("page.js"),
        links=links,
        lead=lead,
        sections=sections,
        pictures=writer.pictures(),
    )


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
<nav aria-label="Contents"><ul>{links}</ul></nav>
<main>
<h1>{title}</h1>
{lead}
{sections}
</main>
{pictures}
<script>
{script}</script>
</body>
</html>
"""


class _Writer:
    """Turns blocks into HTML, and numbers the data of those that the script draws."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._numbers: Iterator[int] = count(1)
        self._pictures: dict[str, int] = {}

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
            case _:
                return _words(block)

    def _figure(self, figure: Figure) -> str:
        data = base64.b64encode((self._folder / figure.path).read_bytes()).decode()
        picture = f'<img alt="{escape(printable(figure.alt))}" src="data:image/png;base64,{data}">'
        return f"<figure>{picture}<figcaption>{_text(figure.caption)}</figcaption></figure>"

    def _gallery(self, gallery: Gallery) -> str:
        """Pictures and scores, which the script shows one at a time; without scripts, the strip."""
        images = [
            {
                "image": found.image,
                "score": found.score,
                "tiles": {kind: self._picture(_tile(kind, path)) for kind, path in found.tiles.items()},
            }
            for found in gallery.images
        ]
        content = {"images": images, "legend": gallery.legend}
        strip = self._figure(gallery.strip)
        return f'<div class="gallery" data-content="{self._number()}"><noscript>{strip}</noscript></div>{self._data(content)}'

    def _picture(self, uri: str) -> int:
        """The number of a picture. Runs share images and labels, so the page holds each picture once."""
        return self._pictures.setdefault(uri, len(self._pictures))

    def _images(self, block: ImageTable) -> str:
        content = {
            "images": block.images,
            "classes": block.classes,
            "columns": [
                {
                    "label": column.label,
                    "mIoU_I": [_rounded(value) for value in column.miou_i],
                    "IoU": [[_rounded(value) for value in row] for row in column.iou],
                }
                for column in block.columns
            ],
        }
        empty = "<noscript><p>Sorting and filtering need JavaScript; per_image.csv has the same numbers.</p></noscript>"
        return f'<div class="images" data-content="{self._number()}">{empty}</div>{self._data(content)}'

    def pictures(self) -> str:
        """All pictures of all galleries, for the script."""
        return _data("pictures", list(self._pictures))

    def _number(self) -> int:
        self._current = next(self._numbers)
        return self._current

    def _data(self, content: Any) -> str:
        return _data(f"content-{self._current}", content)


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


def _tile(kind: str, path: Path) -> str:
    """A tile as a data URI."""
    from PIL import Image

    picture = Image.fromarray(read_image(PlainFile(str(path), path)))
    if max(picture.size) > WEB_TILE_PX:
        scale = WEB_TILE_PX / max(picture.size)
        size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
        picture = picture.resize(size, Image.Resampling.LANCZOS if kind == "image" else Image.Resampling.NEAREST)
    stream, form = io.BytesIO(), "jpeg" if kind in PHOTOGRAPHS else "png"
    picture.save(stream, form, **({"quality": 88} if form == "jpeg" else {"optimize": True}))
    return f"data:image/{form};base64,{base64.b64encode(stream.getvalue()).decode()}"


def _asset(name: str) -> str:
    return (files("segctl.report") / name).read_text(encoding="utf-8")
