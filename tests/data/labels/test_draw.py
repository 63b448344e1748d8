import numpy as np
import pytest
from annotation_files import slow_fill
from hypothesis import given, settings
from hypothesis import strategies as st

from segctl.data.labels import draw as module
from segctl.data.labels.annotations import AnnotatedShape, Runs, ShapeError, ellipse_ring, line_rings, ring
from segctl.data.labels.draw import BEYOND, CROSSES, TINY, draw_label_map
from segctl.errors import InputError

SQUARE = [(2, 2), (6, 2), (6, 6), (2, 6)]


def label_of(*shapes: AnnotatedShape, size=(10, 12), unlabelled=0):
    ids = {shape.class_name: number for number, shape in enumerate(shapes, start=1)}
    return draw_label_map(shapes, ids, size, unlabelled)


def test_a_square_of_four_by_four_is_four_by_four_pixels():
    label, remarks = label_of(AnnotatedShape("a", rings=(ring(SQUARE),)))
    wanted = np.zeros((10, 12), np.uint8)
    wanted[2:6, 2:6] = 1
    assert np.array_equal(label, wanted)
    assert remarks == {}


def test_a_pixel_belongs_to_the_shape_that_holds_its_centre():
    shifted = ring(SQUARE) + 0.49
    assert np.array_equal(
        label_of(AnnotatedShape("a", rings=(shifted,)))[0], label_of(AnnotatedShape("a", rings=(ring(SQUARE),)))[0]
    )
    assert label_of(AnnotatedShape("a", rings=(ring(SQUARE) + 0.51,)))[0][3:7, 3:7].all()


def test_shapes_that_share_an_edge_neither_overlap_nor_leave_a_gap():
    cut = [(3.5, 0), (5.5, 10)]  # through the centres of some pixels
    left, right = ring([(0, 0), cut[0], cut[1], (0, 10)]), ring([cut[0], (12, 0), (12, 10), cut[1]])
    masks = [label_of(AnnotatedShape("a", rings=(corners,)))[0] for corners in (left, right)]
    assert np.array_equal(masks[0] + masks[1], np.ones((10, 12), np.uint8))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.floats(-3, 14).map(lambda value: round(value * 4) / 4)] * 2), min_size=3, max_size=9))
def test_polygons_are_filled_as_a_slow_rasteriser_fills_them(corners):
    label, _ = label_of(AnnotatedShape("a", rings=(ring(corners),)))
    assert np.array_equal(label == 1, slow_fill(corners, 10, 12))


def test_long_polygons_are_drawn_in_parts_as_in_one(monkeypatch):
    angles = np.linspace(0, 40, 2000)
    corners = np.stack([6 + 5 * np.cos(angles), 5 + 4 * np.sin(angles * 1.1)], axis=1)
    whole, _ = label_of(AnnotatedShape("a", rings=(corners,)))
    monkeypatch.setattr(module, "CROSSINGS_AT_ONCE", 7)
    parts, remarks = label_of(AnnotatedShape("a", rings=(corners,)))
    assert np.array_equal(whole, parts)
    assert remarks == {CROSSES: 1}


def test_higher_shapes_lie_above_and_smaller_ones_above_larger_ones():
    large, small = ring([(0, 0), (8, 0), (8, 8), (0, 8)]), ring(SQUARE)
    label, _ = label_of(AnnotatedShape("small", rings=(small,)), AnnotatedShape("large", rings=(large,)))
    assert (label[3, 3], label[0, 0]) == (1, 2)
    label, _ = label_of(AnnotatedShape("small", rings=(small,)), AnnotatedShape("large", rings=(large,), order=1))
    assert label[3, 3] == 2
    label, _ = label_of(AnnotatedShape("first", rings=(small,)), AnnotatedShape("second", rings=(small,)))
    assert label[3, 3] == 2


def test_parts_are_united_and_holes_are_left_out():
    inner = ring([(3, 3), (5, 3), (5, 5), (3, 5)])
    label, _ = label_of(AnnotatedShape("a", rings=(ring(SQUARE),), holes=(inner,)), unlabelled=255)
    assert (label == 1).sum() == 16 - 4
    assert (label[3:5, 3:5] == 255).all()
    label, _ = label_of(AnnotatedShape("a", rings=(ring(SQUARE), inner)))
    assert (label == 1).sum() == 16


def test_what_is_odd_is_counted():
    bow, far = ring([(1, 1), (9, 9), (9, 1), (1, 9)]), ring([(8, 2), (20, 2), (20, 6), (8, 6)])
    dot = ring([(3.6, 3.6), (3.9, 3.6), (3.9, 3.9)])
    edge = ring([(8, 2), (12.6, 2), (12.6, 6), (8, 6)])  # a tool's rounding
    _, remarks = label_of(
        *(AnnotatedShape(str(number), rings=(corners,)) for number, corners in enumerate((bow, far, dot, edge)))
    )
    assert remarks == {CROSSES: 1, BEYOND: 1, TINY: 1}


def test_shapes_in_parts_of_the_picture_are_scaled():
    halves = ring([(0, 0), (0.5, 0), (0.5, 0.5), (0, 0.5)])
    label, _ = label_of(AnnotatedShape("a", rings=(halves,), relative=True))
    assert label[:5, :6].all()
    assert label.sum() == 30


def test_runs_lie_where_they_say_and_are_cut_at_the_border():
    mask = np.arange(12).reshape(3, 4) % 2 == 1
    runs = Runs.of_mask(mask, left=10, top=8)
    assert np.array_equal(runs.mask(), mask)
    assert runs.area() == 6
    label, remarks = label_of(AnnotatedShape("a", runs=runs))
    assert np.array_equal(label[8:, 10:], mask[:2, :2])
    assert label.sum() == mask[:2, :2].sum()
    assert remarks == {BEYOND: 1}
    columns = Runs(np.array([1, 2, 3]), 2, 3, by_column=True)
    assert columns.mask().tolist() == [[False, True, False], [True, False, False]]


@pytest.mark.parametrize(("lengths", "words"), [([3, 4], "runs of 7 pixels in all, wanted 6"), ([-1, 7], "a run of -1 pixels")])
def test_runs_that_do_not_fit_are_refused(lengths, words):
    with pytest.raises(ShapeError, match=words):
        Runs(np.array(lengths), 2, 3)


def test_a_tangle_is_refused_before_it_takes_minutes(monkeypatch):
    monkeypatch.setattr(module, "MAX_CROSSINGS", 10)
    with pytest.raises(InputError, match="crosses 16 rows of pixels in all, wanted at most 10"):
        label_of(AnnotatedShape("a", rings=(ring([(2, 1), (3, 9), (4, 1)]),)))


def test_discs_and_lines_have_their_areas():
    label, _ = draw_label_map([AnnotatedShape("a", rings=(ellipse_ring(50, 50, 30, 20, 30),))], {"a": 1}, (100, 100), 0)
    assert abs(int(label.sum()) - np.pi * 600) < 10
    rings = line_rings([[10, 50], [60, 50], [60, 90]], 10)
    label, _ = draw_label_map([AnnotatedShape("a", rings=rings)], {"a": 1}, (100, 100), 0)
    assert label[45:55, 10:60].all()
    assert label[50:90, 55:65].all()
    assert not label[:, :10].any()
    assert not label[:45].any()
