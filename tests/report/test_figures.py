"""Figures are pictures one can read: of the right size, each group in its own colour."""

import numpy as np
import pytest
from PIL import Image

from segctl.report.collect import Curves
from segctl.report.figures import LINE_COLORS, Bars, HistogramLine, Line, draw_bars, draw_curves, draw_differences, draw_histogram


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def colors_in(area):
    return {tuple(color) for color in area.reshape(-1, 3).tolist()}


def rgb(rank):
    return tuple(bytes.fromhex(LINE_COLORS[rank][1:]))


def test_curves_are_drawn_for_many_one_and_no_points(read, tmp_path):
    bare = Curves(loss=(), miou_d=((10, 5.0),), last_step=10, weights_of=None)
    single = Curves(loss=((10, 1.5),), miou_d=(), last_step=10, weights_of=None)
    draw_curves([Line("a", read["none-s0"].curves), Line("b", bare), Line("b", single)], tmp_path / "curves.png")
    picture = pixels(tmp_path / "curves.png")
    assert picture.shape[:2] == (540, 1500)
    assert len(colors_in(picture)) > 10


def test_a_bar_is_as_long_as_its_value(tmp_path):
    lengths = []
    for value in (25.0, 50.0, 100.0):
        draw_bars(["sky"], [Bars("run", 0, (value,), (None,))], tmp_path / "bars.png")
        picture = pixels(tmp_path / "bars.png")[:-60]  # without the legend
        lengths.append((picture == rgb(0)).all(-1).sum(1).max())
    assert lengths[1] == pytest.approx(2 * lengths[0], abs=3)
    assert lengths[2] == pytest.approx(4 * lengths[0], abs=5)


@pytest.mark.slow
def test_a_group_keeps_its_colour_by_its_position(tmp_path):
    group = Bars("second", 1, (40.0,), ((30.0, 50.0),))
    draw_bars(["sky"], [group], tmp_path / "bars.png")
    draw_differences(["mIoU_D"], [group], tmp_path / "differences.png")
    draw_histogram([HistogramLine("second", 1, (40.0, 41.0))], tmp_path / "histogram.png")
    for name in ("bars.png", "differences.png", "histogram.png"):
        found = colors_in(pixels(tmp_path / name))
        assert rgb(1) in found
        assert rgb(0) not in found


def test_undefined_values_are_left_out_of_a_figure(tmp_path):
    draw_bars(["sky", "car"], [Bars("run", 0, (None, 10.0), (None, (9.0, 11.0)))], tmp_path / "bars.png")
    draw_differences(["sky", "car"], [Bars("run", 0, (None, 1.0), (None, (0.5, 1.5)))], tmp_path / "differences.png")
    draw_histogram([HistogramLine("run", 0, ())], tmp_path / "histogram.png")
    assert rgb(0) in colors_in(pixels(tmp_path / "bars.png"))


def test_the_best_image_of_all_is_in_the_last_bin(tmp_path):
    draw_histogram([HistogramLine("run", 0, (100.0,))], tmp_path / "histogram.png")
    picture = pixels(tmp_path / "histogram.png")[:-120]
    assert (picture == rgb(0)).all(-1)[:, picture.shape[1] // 2 :].any()
