"""Figures are SVG with searchable text, each group in its own colour, and nothing in them can leave the picture."""

import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest

from segctl.report.collect import Curves
from segctl.report.figures import (
    LINE_COLORS,
    MOST_POINTS,
    Bars,
    HistogramLine,
    Line,
    color_of,
    draw_bars,
    draw_curves,
    draw_differences,
    draw_histogram,
)

SVG = "{http://www.w3.org/2000/svg}"


def elements(svg, kind):
    return list(ElementTree.fromstring(svg).iter(f"{SVG}{kind}"))


def words(svg):
    return " | ".join("".join(element.itertext()) for element in elements(svg, "text"))


def bars_in(svg, position):
    return [element for element in elements(svg, "rect") if element.get("fill") == color_of(position) and not element.get("rx")]


def test_curves_are_drawn_for_many_one_and_no_points(read):
    bare = Curves(loss=(), miou_d=((10, 5.0),), last_step=10, weights_of=None)
    single = Curves(loss=((10, 1.5),), miou_d=(), last_step=10, weights_of=None)
    svg = draw_curves([Line("a", 0, read["none-s0"].curves), Line("b", 1, bare), Line("b", 1, single)])
    assert {"training loss", "validation mIoU_D, %", "step"} <= set(words(svg).split(" | "))
    assert color_of(0) in svg
    assert color_of(1) in svg


def test_a_validation_measured_once_is_a_number_and_no_curve():
    once = Curves(loss=((1, 2.0), (2, 1.0)), miou_d=((25, 31.987),), last_step=25, weights_of=None)
    svg = draw_curves([Line("student", 0, once)])
    assert "31.99 at step 25: student" in words(svg)
    assert "measured once" in words(svg)
    assert len(elements(svg, "polyline")) == 1  # the loss


def test_a_long_log_becomes_a_line_of_few_points():
    many = Curves(loss=tuple((step, float(step % 7)) for step in range(1, 20_001)), miou_d=(), last_step=1, weights_of=None)
    for line in elements(draw_curves([Line("a", 0, many)]), "polyline"):
        assert 10 < len(line.get("points").split()) <= MOST_POINTS


def test_a_bar_is_as_long_as_its_value():
    lengths = [
        float(bars_in(draw_bars(["sky"], [Bars("run", 0, (value,), (None,))]), 0)[0].get("width"))
        for value in (25.0, 50.0, 100.0)
    ]
    assert lengths[1] == pytest.approx(2 * lengths[0], abs=0.2)
    assert lengths[2] == pytest.approx(4 * lengths[0], abs=0.4)


def test_a_group_keeps_its_colour_by_its_position():
    group = Bars("second", 1, (40.0,), ((30.0, 50.0),))
    curve = Curves(loss=((1, 2.0), (2, 1.0)), miou_d=(), last_step=2, weights_of=None)
    figures = (
        draw_bars(["sky"], [group]),
        draw_differences(["mIoU_D"], [group]),
        draw_histogram([HistogramLine("second", 1, (40.0, 41.0))]),
        draw_curves([Line("second", 1, curve)]),
    )
    for svg in figures:
        assert LINE_COLORS[1] in svg
        assert not [color for color in LINE_COLORS if color in svg and color != LINE_COLORS[1]]


def test_undefined_values_are_left_out_of_a_figure():
    svg = draw_bars(["sky", "car"], [Bars("run", 0, (None, 10.0), (None, (9.0, 11.0)))])
    assert len(bars_in(svg, 0)) == 1
    assert "n/a" in words(svg)
    svg = draw_differences(["sky", "car"], [Bars("run", 0, (None, 1.0), (None, (0.5, 1.5)))])
    assert len(elements(svg, "circle")) == 1
    ElementTree.fromstring(draw_histogram([HistogramLine("run", 0, ())]))


def test_every_group_has_a_scale_of_differences_of_its_own():
    """A gain of one point beside a lead of forty is as wide as that lead."""
    groups = [Bars("kd", 0, (1.0, 0.5), ((0.5, 1.5), (0.0, 1.0))), Bars("teacher", 1, (40.0, 20.0), ((20.0, 60.0), (0.0, 40.0)))]
    lines = elements(draw_differences(["a", "b"], groups), "line")
    widths = [
        [float(line.get("x2")) - float(line.get("x1")) for line in lines if line.get("stroke") == color_of(position)]
        for position in (0, 1)
    ]
    assert widths[0] == pytest.approx(widths[1], abs=0.3)
    assert min(widths[0]) > 100


def test_the_best_image_of_all_is_in_the_last_bin():
    (line,) = elements(draw_histogram([HistogramLine("run", 0, (100.0,))]), "polyline")
    heights = [float(point.split(",")[1]) for point in line.get("points").split()]
    assert heights[-1] < heights[0]


def test_names_are_text_and_never_markup():
    name = "<script>alert(1)</script>&\"'\x1b\n"
    group = Bars(name, 0, (40.0,), ((30.0, 50.0),))
    curves = Curves(loss=((1, 2.0),), miou_d=((1, 5.0),), last_step=1, weights_of=None)
    figures = (
        draw_bars([name], [group]),
        draw_differences([name], [group]),
        draw_histogram([HistogramLine(name, 0, (1.0,))]),
        draw_curves([Line(name, 0, curves), Line("b", 1, replace(curves, miou_d=()))]),
    )
    for svg in figures:
        assert not elements(svg, "script")
        assert "\x1b" not in svg
        assert "style=" not in svg  # the page's content security policy forbids it
        assert not re.search(r"\son\w+=", svg)


def test_long_names_are_cut_and_kept_whole_as_a_title():
    name = "a class with a name that is far too long for the side of a figure"
    svg = draw_bars([name], [Bars("run", 0, (40.0,), (None,))])
    assert name in [element.text for element in elements(svg, "title")]
