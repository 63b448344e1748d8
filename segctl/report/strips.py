"""Draws the worst images of a run as one PNG (Pillow, imported where it is used, so that help stays instant)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segctl.data.files.archives import PlainFile
from segctl.data.files.pictures import read_image
from segctl.errors import printable
from segctl.files import write_whole
from segctl.report.collect import TILES, Rgb, WorstImage

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFont import FreeTypeFont

STRIP_TILE_PX = 300
GAP_PX = 6
TEXT_PX = 15
LINE_PX = 24
SWATCH_PX = 14
INK, FAINT = (34, 34, 34), (120, 120, 120)

FIXED_LEGEND: tuple[tuple[str, Rgb], ...] = (("error: wrong", (215, 35, 35)), ("ignored", (0, 0, 0)))


def draw_worst(images: Sequence[WorstImage], colors: Mapping[str, Rgb], path: Path) -> None:
    """One row per image (image, truth, prediction, error), and below it the colours of the classes in view."""
    from PIL import Image

    rows = [(image, _load_tiles(image)) for image in images]
    strips = [_header(), *(_row(image, tiles) for image, tiles in rows), _legend(_in_view(colors, [tiles for _, tiles in rows]))]
    sheet = Image.new("RGB", (_sheet_width(), sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    write_whole(path, lambda partial: sheet.save(partial, format="PNG"))


def _load_tiles(image: WorstImage) -> list["Image"]:
    """The four tiles, fitted into squares of STRIP_TILE_PX. Class colours are resized without blending."""
    from PIL import Image

    tiles = []
    for kind in TILES:
        tile = Image.fromarray(read_image(PlainFile(str(image.tiles[kind]), image.tiles[kind])))
        scale = min(STRIP_TILE_PX / tile.width, STRIP_TILE_PX / tile.height)
        size = (max(1, round(tile.width * scale)), max(1, round(tile.height * scale)))
        smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
        tiles.append(tile.resize(size, smooth if kind == "image" else Image.Resampling.NEAREST))
    return tiles


def _sheet_width() -> int:
    return len(TILES) * STRIP_TILE_PX + (len(TILES) + 1) * GAP_PX


def _header() -> "Image":
    from PIL import Image, ImageDraw

    strip = Image.new("RGB", (_sheet_width(), LINE_PX + 4), "white")
    pen = ImageDraw.Draw(strip)
    for column, kind in enumerate(TILES):
        left = GAP_PX + column * (STRIP_TILE_PX + GAP_PX)
        pen.text((left + STRIP_TILE_PX / 2, LINE_PX / 2 + 2), kind, fill=INK, font=_font(bold=True), anchor="mm")
    return strip


def _row(image: WorstImage, tiles: Sequence["Image"]) -> "Image":
    from PIL import Image, ImageDraw

    height = max(tile.height for tile in tiles)
    strip = Image.new("RGB", (_sheet_width(), height + LINE_PX + GAP_PX), "white")
    pen, font = ImageDraw.Draw(strip), _font()
    value = "n/a" if image.miou_i is None else f"{image.miou_i:.2f}"
    pen.text((GAP_PX, LINE_PX / 2), printable(image.image), fill=INK, font=font, anchor="lm")
    pen.text((_sheet_width() - GAP_PX, LINE_PX / 2), f"mIoU_I {value}", fill=INK, font=font, anchor="rm")
    for column, tile in enumerate(tiles):
        left = GAP_PX + column * (STRIP_TILE_PX + GAP_PX)
        strip.paste(tile, (left + (STRIP_TILE_PX - tile.width) // 2, LINE_PX + (height - tile.height) // 2))
    return strip


def _in_view(colors: Mapping[str, Rgb], rows: Sequence[Sequence["Image"]]) -> list[tuple[str, Rgb]]:
    """The classes whose colour is in a truth or prediction tile, then the meaning of the other colours."""
    truth, prediction = TILES.index("truth"), TILES.index("prediction")
    seen: set[Any] = set()
    for tiles in rows:
        for tile in (tiles[truth], tiles[prediction]):
            seen |= {color for _, color in tile.getcolors(tile.width * tile.height) or []}
    classes = [(name, color) for name, color in colors.items() if color in seen]
    taken = {color for _, color in classes}
    return [*classes, *((name, color) for name, color in FIXED_LEGEND if color not in taken)]


def _legend(entries: Sequence[tuple[str, Rgb]]) -> "Image":
    from PIL import Image, ImageDraw

    font = _font()
    left, line, placed = GAP_PX, 0, []
    for name, color in ((printable(name), color) for name, color in entries):
        width = SWATCH_PX + 6 + round(font.getlength(name)) + 18
        if left + width > _sheet_width() and left > GAP_PX:
            left, line = GAP_PX, line + 1
        placed.append((left, line, name, color))
        left += width
    strip = Image.new("RGB", (_sheet_width(), (line + 1) * LINE_PX + GAP_PX), "white")
    pen = ImageDraw.Draw(strip)
    for left, line, name, color in placed:
        middle = line * LINE_PX + LINE_PX // 2
        box = (left, middle - SWATCH_PX // 2, left + SWATCH_PX, middle + SWATCH_PX // 2)
        pen.rectangle(box, fill=color, outline=FAINT)
        pen.text((left + SWATCH_PX + 6, middle), name, fill=INK, font=font, anchor="lm")
    return strip


def _font(*, bold: bool = False) -> "FreeTypeFont":
    """DejaVu Sans, which comes with matplotlib and has the letters of most languages."""
    from matplotlib import get_data_path
    from PIL import ImageFont

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), TEXT_PX)
