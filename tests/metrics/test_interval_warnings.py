"""Images of one drive, few images and few groups are warned of; others are not."""

import numpy as np
import pytest

from segctl.metrics.counts import count
from segctl.metrics.interval_warnings import interval_warning
from segctl.metrics.table import CountTable

NARROW = "frames of one drive resemble each other, so these intervals are too narrow"


@pytest.mark.parametrize(
    ("names", "groups", "expected"),
    [
        ([f"{index:03d}" for index in range(20)], None, None),
        ([f"0016E5_{index:05d}" for index in range(7959, 8160, 2)], None,
         f"the 101 images look like every few frames of one video, and no groups are known: {NARROW}"),
        ([f"0016E5_{index:05d}" for index in range(7959, 8160, 2)], ["0016E5"] * 101,
         f"all 101 images are of one group, '0016E5': {NARROW}"),
        ([f"2007_{index:06d}" for index in (33, 42, 61, 123, 129, 175, 187, 323, 332, 346)], None, None),
        (["a", "b", "c", "d"], None, "there are only 4 images: these intervals are rough"),
        ([f"{index:03d}" for index in range(20)], list("aaabbbcccc" * 2), "there are only 3 groups: these intervals are rough"),
        ([f"{index:03d}" for index in range(20)], list("abcdefghijklmnopqrst"), None),
        ([], None, None),
    ],
)  # fmt: skip
def test_images_that_say_less_than_their_number_promises_are_warned_of(names, groups, expected):
    counts = count(np.zeros((1, 1, 1), np.uint8), np.zeros((1, 1, 1), np.uint8), 2).repeat(len(names), 0)
    table = CountTable(tuple(names), ("a", "b"), counts, None if groups is None else tuple(groups))
    assert interval_warning(table) == expected
