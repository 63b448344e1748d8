"""A contact sheet of a split: images above their labels, and a legend of the class colours."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from segctl.data.batches.views import Views
from segctl.data.classes import ClassTable
from segctl.data.files.bands import shown_rgb
from segctl.data.shards.dataset import PreparedDataset
from segctl.files import write_whole
from segctl.ignored import IGNORED
from segctl.schema.data import DataSpec

_COLUMNS, _ROWS = 4, 3
CELL_PX = 320
_GAP_PX, _MARGIN_PX = 16, 32
_TITLE_PX, _CAPTION_PX, LEGEND_PX = 26, 14, 16
_PAPER, _INK, _FADED = (255, 255, 255), (28, 30, 34), (110, 114, 122)


def write_preview(dataset: PreparedDataset, split: str, path: Path, spec: DataSpec | None = None) -> list[str]:
    """Write the sheet as a PNG and return the samples on it, which are evenly spread over the split.

    spec: show the training views that it asks for, those of seed 0 and epoch 0, instead of whole samples.
    """
    names = _spread(dataset.names(split), _COLUMNS * _ROWS)
    sheet = draw_sheet(dataset, split, names, spec)
    write_whole(path, lambda partial: sheet.save(partial, "PNG"))
    return names


def _spread(names: list[str], count: int) -> list[str]:
    count = min(count, len(names))
    return [names[index * len(names) // count] for index in range(count)]


def draw_sheet(dataset: PreparedDataset, split: str, names: Sequence[str], spec: DataSpec | None = None) -> Image.Image:
    """The sheet: a title, a grid of samples or their training views in reading order, and the legend."""
    if spec is None:
        labels = [dataset.label(name) if dataset.has_label(name) else None for name in names]
        cells = [_cell(dataset.image(name), label, name, dataset.classes) for name, label in zip(names, labels, strict=True)]
    else:
        from segctl.data.batches.loader import Stream  # not above: it loads torch, which whole samples do not need

        stream, views = Stream(len(dataset.names(split)), 1, seed=0), Views.of(dataset, split, spec)
        places = {name: index for index, name in enumerate(dataset.names(split))}
        shown = [views.read(name, stream.random(0, places[name])) for name in names]
        cells = [_cell(image, label, name, dataset.classes) for name, (_, image, label) in zip(names, shown, strict=True)]
    rows = [cells[start : start + _COLUMNS] for start in range(0, len(cells), _COLUMNS)]
    heights = [max(cell.height for cell in row) for row in rows]
    width = 2 * _MARGIN_PX + _COLUMNS * CELL_PX + (_COLUMNS - 1) * _GAP_PX
    legend = _legend(dataset.classes, width - 2 * _MARGIN_PX)
    header = _MARGIN_PX + _TITLE_PX + 2 * _GAP_PX
    sheet = Image.new("RGB", (width, header + sum(heights) + _GAP_PX * len(rows) + legend.height + _MARGIN_PX), _PAPER)
    pen = ImageDraw.Draw(sheet)
    title = f"{dataset.name}, {split}" + ("" if spec is None else ", as it is trained on")
    pen.text((_MARGIN_PX, _MARGIN_PX), title, _INK, _font(_TITLE_PX))
    count = f"{len(names)} of {len(dataset.names(split))} samples"
    pen.text((width - _MARGIN_PX, _MARGIN_PX + _TITLE_PX - LEGEND_PX), count, _FADED, _font(LEGEND_PX), anchor="ra")
    top = header
    for row, height in zip(rows, heights, strict=True):
        for column, cell in enumerate(row):
            sheet.paste(cell, (_MARGIN_PX + column * (CELL_PX + _GAP_PX), top))
        top += height + _GAP_PX
    sheet.paste(legend, (_MARGIN_PX, top))
    return sheet


def _cell(image: np.ndarray, label: np.ndarray | None, name: str, classes: ClassTable) -> Image.Image:
    """Image uint8 (H, W, bands) above label uint8 (H, W) at the cell's width, the name below; the image alone without label."""
    height, width = image.shape[:2]
    size = (CELL_PX, max(1, round(CELL_PX * height / width)))
    picture = Image.fromarray(shown_rgb(image)).resize(size, Image.Resampling.BICUBIC)
    if label is None:
        cell = Image.new("RGB", (CELL_PX, size[1] + _CAPTION_PX + _GAP_PX), _PAPER)
        cell.paste(picture, (0, 0))
        ImageDraw.Draw(cell).text((0, size[1] + 6), f"{name} (no label)", _FADED, _font(_CAPTION_PX))
        return cell
    colored = color_label(np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST)), classes)
    cell = Image.new("RGB", (CELL_PX, 2 * size[1] + 2 + _CAPTION_PX + _GAP_PX), _PAPER)
    cell.paste(picture, (0, 0))
    cell.paste(Image.fromarray(colored), (0, size[1] + 2))
    ImageDraw.Draw(cell).text((0, 2 * size[1] + 8), name, _FADED, _font(_CAPTION_PX))
    return cell


def color_label(label: np.ndarray, classes: ClassTable) -> np.ndarray:
    """Label uint8 (H, W) -> uint8 (H, W, 3) in class colours; ignored pixels are hatched in grey, the colour of no class."""
    colored = classes.palette()[label]
    y, x = np.nonzero(label == IGNORED)
    colored[y, x] = np.where((x + y)[:, None] % 8 < 4, 240, 200)
    return np.asarray(colored)


def _legend(classes: ClassTable, width: int) -> Image.Image:
    """The class colours with names, as many in a line as fit."""
    font, swatch = _font(LEGEND_PX), LEGEND_PX + 4
    entries = [*enumerate(classes.names), (IGNORED, "ignored")]
    places, x, y = [], 0, 0
    for train_id, name in entries:
        length = swatch + 8 + round(font.getlength(name)) + 28
        if x and x + length > width:
            x, y = 0, y + swatch + 12
        places.append((train_id, name, x, y))
        x += length
    legend = Image.new("RGB", (width, y + swatch), _PAPER)
    pen = ImageDraw.Draw(legend)
    for train_id, name, x, y in places:
        legend.paste(Image.fromarray(color_label(np.full((swatch, swatch), train_id, np.uint8), classes)), (x, y))
        pen.rectangle((x, y, x + swatch - 1, y + swatch - 1), outline=_FADED)
        pen.text((x + swatch + 8, y + swatch // 2), name, _INK, font, anchor="lm")
    return legend


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
