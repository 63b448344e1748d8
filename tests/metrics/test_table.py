"""Tables of counts: merged in any order."""

import dataclasses

import numpy as np
import pytest

from segctl.errors import InputError
from segctl.metrics.table import CountTable, merge_tables

CLASSES = ("road", "car")


def table(names, seed=0, classes=CLASSES):
    rng = np.random.default_rng(seed)
    return CountTable(tuple(names), classes, rng.integers(0, 50, (len(names), len(classes), 3)))


def part(whole, rows):
    return CountTable(tuple(whole.names[row] for row in rows), whole.class_names, whole.counts[rows])


def test_merged_shares_equal_the_whole_whoever_counted_what():
    whole = table("abcdefg")
    shares = [part(whole, [6, 1, 3]), part(whole, []), part(whole, [0, 5, 2, 4])]
    merged = merge_tables(shares)
    assert merged.names == whole.names
    np.testing.assert_array_equal(merged.counts, whole.counts)


def test_merged_images_come_in_the_order_asked_for():
    whole = table("abc")
    merged = merge_tables([part(whole, [1]), part(whole, [0, 2])], order=["c", "a", "b"])
    assert merged.names == ("c", "a", "b")
    np.testing.assert_array_equal(merged.counts, whole.counts[[2, 0, 1]])


def test_an_image_counted_twice_is_refused():
    with pytest.raises(InputError) as error:
        merge_tables([table("ab"), table("bc")])
    assert str(error.value) == "image 'b' was counted twice, wanted every image once"


def test_an_image_that_was_not_counted_is_named():
    with pytest.raises(InputError) as error:
        merge_tables([table("ab")], order=["a", "b", "c"])
    assert str(error.value) == "image 'c' was not counted: got 2 images, wanted 3"


def test_more_images_than_named_are_refused():
    with pytest.raises(InputError) as error:
        merge_tables([table("abc")], order=["a", "b"])
    assert str(error.value) == "more images were counted than named: got 3 images, wanted 2"


def test_counts_of_other_classes_are_not_merged():
    with pytest.raises(InputError) as error:
        merge_tables([table("a"), table("b", classes=("road", "bus"))])
    assert str(error.value) == "cannot merge counts of classes road, car and road, bus"


def test_nothing_to_merge_is_refused():
    with pytest.raises(InputError, match="there are no counts to merge"):
        merge_tables([])


def test_counts_of_another_shape_are_refused():
    with pytest.raises(InputError) as error:
        CountTable(("a",), CLASSES, np.zeros((2, 2, 3), np.int64))
    assert str(error.value) == "got counts of int64 (2, 2, 3), wanted int64 (1, 2, 3)"


def test_valid_pixels_outside_predictions_and_ignored_images_are_read_off_the_counts():
    counts = np.array([[[3, 0, 2], [1, 1, 0]], [[0, 0, 0], [0, 0, 0]]])
    found = CountTable(("a", "b"), CLASSES, counts)
    assert found.valid_pixels.tolist() == [6, 0]
    assert (found.outside_predictions, found.ignored_images) == (1, 1)


def grouped(names, groups):
    return dataclasses.replace(table(names), groups=tuple(groups))


def test_groups_are_merged_and_follow_their_images():
    whole = merge_tables([grouped("ca", "xy"), grouped("b", "x")])
    assert (whole.names, whole.groups) == (("a", "b", "c"), ("y", "x", "x"))
    assert whole.rows(["c", "a"]).groups == ("x", "y")


def test_an_empty_share_does_not_hide_the_groups_of_the_others():
    assert merge_tables([grouped("a", "x"), table("")]).groups == ("x",)


def test_groups_that_only_some_shares_know_are_dropped():
    assert merge_tables([grouped("a", "x"), table("b")]).groups is None


def test_groups_of_another_number_are_refused():
    with pytest.raises(InputError) as error:
        grouped("ab", "x")
    assert str(error.value) == "got 1 groups, wanted 2, one for each image"
