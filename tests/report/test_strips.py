"""Strips are pictures one can read: right size, class colours kept exact."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from segctl.errors import InputError
from segctl.report.strips import GAP_PX, LINE_PX, STRIP_TILE_PX, draw_worst
from tests.report.run_folders import CLASSES, COLORS


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def colors_in(area):
    return {tuple(color) for color in area.reshape(-1, 3).tolist()}


def test_a_strip_has_four_tiles_for_every_image(read, tmp_path):
    found = read["none-s0"].evaluations["val"]
    draw_worst(found.worst[:2], found.colors, tmp_path / "strip.png")
    height, width, _ = pixels(tmp_path / "strip.png").shape
    tile_height = STRIP_TILE_PX * 60 // 80
    assert width == 4 * STRIP_TILE_PX + 5 * GAP_PX
    assert height == (LINE_PX + 4) + 2 * (tile_height + LINE_PX + GAP_PX) + (LINE_PX + GAP_PX)


def test_class_colours_are_not_blended(read, tmp_path):
    found = read["none-s0"].evaluations["val"]
    draw_worst(found.worst[:1], found.colors, tmp_path / "strip.png")
    top, left = 2 * LINE_PX + 4, 2 * GAP_PX + STRIP_TILE_PX
    truth = pixels(tmp_path / "strip.png")[top : top + STRIP_TILE_PX * 60 // 80, left : left + STRIP_TILE_PX]
    assert colors_in(truth) <= {*COLORS, (0, 0, 0)}


def test_the_legend_shows_the_classes_in_view_alone(read, tmp_path):
    found = read["city-none"].evaluations["val"]  # no image has a pole
    draw_worst(found.worst, found.colors, tmp_path / "strip.png")
    legend = colors_in(pixels(tmp_path / "strip.png")[-LINE_PX - GAP_PX :])
    assert COLORS[CLASSES.index("sky")] in legend
    assert COLORS[CLASSES.index("pole")] not in legend


def test_without_recorded_colours_no_class_is_named(read, tmp_path):
    found = read["none-s0"].evaluations["val"]
    draw_worst(found.worst[:1], {}, tmp_path / "strip.png")
    legend = colors_in(pixels(tmp_path / "strip.png")[-LINE_PX - GAP_PX :])
    assert not legend & set(COLORS)


def test_long_legends_wrap(read, tmp_path):
    found = read["none-s0"].evaluations["val"]
    long = {f"{name} with a very long description": color for name, color in found.colors.items()}
    for name, colors in (("short.png", found.colors), ("long.png", long)):
        draw_worst(found.worst[:1], colors, tmp_path / name)
    assert pixels(tmp_path / "long.png").shape[0] > pixels(tmp_path / "short.png").shape[0]


@pytest.mark.parametrize("size", [(2000, 400), (30, 90), (1, 1)])
def test_images_of_any_shape_fit_their_place(tmp_path, read, size):
    found = read["none-s0"].evaluations["val"].worst[0]
    Image.new("RGB", size, "red").save(tmp_path / "tile.png")
    image = replace(found, tiles=dict.fromkeys(found.tiles, tmp_path / "tile.png"))
    draw_worst([image], {}, tmp_path / "strip.png")
    assert pixels(tmp_path / "strip.png").shape[1] == 4 * STRIP_TILE_PX + 5 * GAP_PX


def test_an_undefined_score_is_drawn_unlike_a_number(tmp_path, read):
    found = read["none-s0"].evaluations["val"]
    for name, score in (("number.png", 12.5), ("undefined.png", None)):
        draw_worst([replace(found.worst[0], miou_i=score)], found.colors, tmp_path / name)
    number, undefined = pixels(tmp_path / "number.png"), pixels(tmp_path / "undefined.png")
    assert number.shape == undefined.shape
    assert (number != undefined).any()


def test_a_tile_that_is_no_picture_is_named(tmp_path, read):
    found = read["none-s0"].evaluations["val"].worst[0]
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG cut")
    with pytest.raises(InputError) as error:
        draw_worst([replace(found, tiles={**found.tiles, "truth": broken})], {}, tmp_path / "strip.png")
    assert error.value.message.startswith(f"cannot read '{broken}': ")
