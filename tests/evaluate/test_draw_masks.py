"""Index PNGs keep their ids under their colours; overlays are half and half."""

from pathlib import Path

import numpy as np
from PIL import Image

from segctl.evaluate.draw_masks import overlay, write_index, write_picture
from segctl.evaluate.png_pairs import read_ids

IDS = np.array([[0, 1], [2, 255]], np.uint8)
PALETTE = np.zeros((256, 3), np.uint8)
PALETTE[:3] = [[10, 20, 30], [200, 0, 0], [0, 255, 0]]


def test_an_index_png_shows_colours_and_holds_ids(tmp_path: Path) -> None:
    write_index(tmp_path / "deep" / "m.png", IDS, PALETTE)
    np.testing.assert_array_equal(read_ids(tmp_path / "deep" / "m.png"), IDS)
    with Image.open(tmp_path / "deep" / "m.png") as opened:
        assert opened.mode == "P"
        np.testing.assert_array_equal(np.array(opened.convert("RGB")), PALETTE[IDS])


def test_without_a_palette_it_is_grey(tmp_path: Path) -> None:
    write_index(tmp_path / "m.png", IDS)
    with Image.open(tmp_path / "m.png") as opened:
        assert opened.mode == "L"
    np.testing.assert_array_equal(read_ids(tmp_path / "m.png"), IDS)


def test_an_overlay_is_half_image_half_colour(tmp_path: Path) -> None:
    image = np.full((2, 2, 3), 100, np.uint8)
    mixed = overlay(image, IDS, PALETTE)
    np.testing.assert_array_equal(mixed[0], [[55, 60, 65], [150, 50, 50]])
    write_picture(tmp_path / "o.png", mixed)
    with Image.open(tmp_path / "o.png") as opened:
        np.testing.assert_array_equal(np.array(opened), mixed)


def test_an_overlay_is_the_mean_of_picture_and_colour_for_every_pair_of_values() -> None:
    """Halves go to the even number, as NumPy rounds."""
    ids = np.arange(256, dtype=np.uint8)[None].repeat(256, 0)
    image = np.arange(256, dtype=np.uint8)[:, None, None].repeat(256, 1).repeat(3, 2)
    palette = np.stack([np.arange(256), np.arange(256)[::-1], np.full(256, 7)], 1).astype(np.uint8)
    np.testing.assert_array_equal(overlay(image, ids, palette), (0.5 * image + 0.5 * palette[ids]).round().astype(np.uint8))
