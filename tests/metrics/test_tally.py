"""Everything counted of an image: joined from any shares, scored under every name."""

import numpy as np
import pytest
from cityscapes_labels import BENCHMARK
from counted_images import GROUPS, NAMES, assert_same, counted, everything, maps, only_pairs

from segctl.metrics.counts import confusion, count
from segctl.metrics.scores import SCORE_NAMES, score
from segctl.metrics.tally import all_scores, merge_counts


def test_a_tally_counts_what_counting_all_at_once_does():
    found = counted(NAMES)
    prediction, label = (np.stack(maps_) for maps_ in zip(*[maps(name)[:2] for name in NAMES], strict=True))
    np.testing.assert_array_equal(found.table.counts, count(prediction, label, 19))
    np.testing.assert_array_equal(found.confusion, confusion(prediction, label, 19))
    assert found.table.groups == tuple(GROUPS[name] for name in NAMES)
    assert found.unscored.tolist() == [sum(range(7))] * 19


@pytest.mark.parametrize("counter", [everything, only_pairs])
@pytest.mark.parametrize("size", [1, 2, 3, 9])
def test_any_sharing_gives_the_same_whole(size, counter):
    shares = [counted(NAMES[::-1][rank::size], counter) for rank in range(size)]
    assert_same(merge_counts(shares, NAMES), counted(NAMES, counter))


def test_without_an_order_images_are_sorted_by_name():
    assert merge_counts([counted(NAMES[::-1])]).table.names == tuple(NAMES)


def test_an_empty_tally_is_a_whole_of_no_image():
    nothing = counted([])
    assert nothing.table.names == ()
    assert_same(merge_counts([nothing, counted(NAMES)], NAMES), counted(NAMES))


def test_scores_are_those_of_what_was_counted():
    plain, full = (all_scores(counted(NAMES, counter), benchmark=BENCHMARK) for counter in (only_pairs, everything))
    assert {name: plain[name] for name in SCORE_NAMES} == score(counted(NAMES).table)
    assert "mIoU_category" in plain
    more = {"mBIoU_D", "mBIoU_I", "mBIoU_C", "ECE_D", "ECE_I", "SCE_D", "SCE_I", "mIoU_K", "miIoU", "miIoU_category"}
    assert more <= set(full)
    assert not more & set(plain)
    assert all(full[name] is not None for name in more)
    assert "mIoU_category" not in all_scores(counted(NAMES))
