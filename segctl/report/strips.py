"""Draws pictures side by side as one PNG."""

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from segctl.data.files.archives import PlainFile
from segctl.data.files.pictures import decode, read_image
from segctl.errors import printable
from segctl.files import write_whole
from segctl.report.collect import TILES, Rgb, WorstImage
from segctl.report.content import AlbumPicture, RowTile
from segctl.report.explorer.maps import ClassIds

STRIP_TILE_PX = 300
GAP_PX = 6
TEXT_PX = 15
LINE_PX = 24
SWATCH_PX = 14
INK, FAINT = (34, 34, 34), (120, 120, 120)

FIXED_LEGEND: tuple[tuple[str, Rgb], ...] = (("error: wrong", (215, 35, 35)), ("ignored", (0, 0, 0)))


def draw_worst(images: Sequence[WorstImage], colors: Mapping[str, Rgb], path: Path) -> None:
    """One row per image (image, truth, prediction, error), and below it the colours of the classes in view."""
    rows = [(image, _load_tiles(image)) for image in images]
    strips = [_header(), *(_row(image, tiles) for image, tiles in rows), _legend(_in_view(colors, [tiles for _, tiles in rows]))]
    sheet = Image.new("RGB", (_sheet_width(), sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    write_whole(path, lambda partial: sheet.save(partial, format="PNG"))


def draw_row(
    picture: AlbumPicture,
    maps: Sequence[tuple[str, ClassIds]],
    classes: Sequence[tuple[str, str]],
    legend: Sequence[tuple[str, str]],
    path: Path,
) -> None:
    """The image and label maps with their roles above, and the classes in view (name, colour) below."""
    tiles = [_fitted(Image.fromarray(decode(picture.jpeg)), photograph=True)]
    tiles += [_fitted(colored(found, classes).convert("RGB"), photograph=False) for _, found in maps]
    width = len(tiles) * STRIP_TILE_PX + (len(tiles) + 1) * GAP_PX
    below = _legend([(name, _rgb(color)) for name, color in legend], width)
    height = max(tile.height for tile in tiles)
    sheet = Image.new("RGB", (width, LINE_PX + 4 + height + GAP_PX + below.height), "white")
    pen = ImageDraw.Draw(sheet)
    for column, (role, tile) in enumerate(zip(["image", *(role for role, _ in maps)], tiles, strict=True)):
        left = GAP_PX + column * (STRIP_TILE_PX + GAP_PX)
        pen.text((left + STRIP_TILE_PX / 2, LINE_PX / 2 + 2), role, fill=INK, font=_font(bold=True), anchor="mm")
        sheet.paste(tile, (left + (STRIP_TILE_PX - tile.width) // 2, LINE_PX + 4 + (height - tile.height) // 2))
    sheet.paste(below, (0, LINE_PX + 4 + height + GAP_PX))
    write_whole(path, lambda partial: sheet.save(partial, format="PNG"))


def row_uris(
    picture: AlbumPicture, maps: Sequence[tuple[str, ClassIds]], classes: Sequence[tuple[str, str]]
) -> tuple[RowTile, ...]:
    """The image and label maps as data URIs with their roles; label maps as index PNGs, whose colours stay exact."""
    found = [RowTile("image", _uri("jpeg", picture.jpeg))]
    for role, ids in maps:
        stream = io.BytesIO()
        colored(ids, classes).save(stream, "png", optimize=True)
        found.append(RowTile(role, _uri("png", stream.getvalue())))
    return tuple(found)


def colored(ids: ClassIds, classes: Sequence[tuple[str, str]]) -> Image.Image:
    """A label map uint8 (H, W) as a picture with class colours as its palette; ids of no class are black."""
    palette = bytearray(3 * 256)
    for index, (_, color) in enumerate(classes):
        palette[3 * index : 3 * index + 3] = bytes(_rgb(color))
    picture = Image.fromarray(ids)
    picture.putpalette(bytes(palette))
    return picture


def _rgb(color: str) -> Rgb:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _load_tiles(image: WorstImage) -> list[Image.Image]:
    """The four tiles, fitted into squares of STRIP_TILE_PX. Class colours are resized without blending."""
    tiles = [Image.fromarray(read_image(PlainFile(str(image.tiles[kind]), image.tiles[kind]))) for kind in TILES]
    return [_fitted(tile, photograph=kind == "image") for kind, tile in zip(TILES, tiles, strict=True)]


def _fitted(tile: Image.Image, *, photograph: bool) -> Image.Image:
    """A picture, fitted into a square of STRIP_TILE_PX. Small ones are enlarged to crisp pixels; class colours never blend."""
    scale = min(STRIP_TILE_PX / tile.width, STRIP_TILE_PX / tile.height)
    size = (max(1, round(tile.width * scale)), max(1, round(tile.height * scale)))
    return tile.resize(size, Image.Resampling.LANCZOS if photograph and scale < 1 else Image.Resampling.NEAREST)


def _sheet_width() -> int:
    return len(TILES) * STRIP_TILE_PX + (len(TILES) + 1) * GAP_PX


def _header() -> Image.Image:
    strip = Image.new("RGB", (_sheet_width(), LINE_PX + 4), "white")
    pen = ImageDraw.Draw(strip)
    for column, kind in enumerate(TILES):
        left = GAP_PX + column * (STRIP_TILE_PX + GAP_PX)
        pen.text((left + STRIP_TILE_PX / 2, LINE_PX / 2 + 2), kind, fill=INK, font=_font(bold=True), anchor="mm")
    return strip


def _row(image: WorstImage, tiles: Sequence[Image.Image]) -> Image.Image:
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


def _in_view(colors: Mapping[str, Rgb], rows: Sequence[Sequence[Image.Image]]) -> list[tuple[str, Rgb]]:
    """The classes whose colour is in a truth or prediction tile, then the meaning of the other colours."""
    truth, prediction = TILES.index("truth"), TILES.index("prediction")
    seen: set[Any] = set()
    for tiles in rows:
        for tile in (tiles[truth], tiles[prediction]):
            seen |= {color for _, color in tile.getcolors(tile.width * tile.height) or []}
    classes = [(name, color) for name, color in colors.items() if color in seen]
    taken = {color for _, color in classes}
    return [*classes, *((name, color) for name, color in FIXED_LEGEND if color not in taken)]


def _legend(entries: Sequence[tuple[str, Rgb]], width_px: int | None = None) -> Image.Image:
    font, across = _font(), width_px or _sheet_width()
    left, line, placed = GAP_PX, 0, []
    for name, color in ((printable(name), color) for name, color in entries):
        width = SWATCH_PX + 6 + round(font.getlength(name)) + 18
        if left + width > across and left > GAP_PX:
            left, line = GAP_PX, line + 1
        placed.append((left, line, name, color))
        left += width
    strip = Image.new("RGB", (across, (line + 1) * LINE_PX + GAP_PX), "white")
    pen = ImageDraw.Draw(strip)
    for left, line, name, color in placed:
        middle = line * LINE_PX + LINE_PX // 2
        box = (left, middle - SWATCH_PX // 2, left + SWATCH_PX, middle + SWATCH_PX // 2)
        pen.rectangle(box, fill=color, outline=FAINT)
        pen.text((left + SWATCH_PX + 6, middle), name, fill=INK, font=font, anchor="lm")
    return strip


def _font(*, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib and has the letters of most languages."""
    from matplotlib import get_data_path

    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(get_data_path()) / "fonts" / "ttf" / name), TEXT_PX)
