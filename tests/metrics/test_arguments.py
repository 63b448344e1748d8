"""Wrong arguments of metrics are ValueErrors in Python, and sentences on the command line."""

import numpy as np
import pytest
import torch

from segctl.errors import InputError
from segctl.metrics.boundary import boundary_counts
from segctl.metrics.calibration import fill_bins
from segctl.metrics.counts import confusion, count
from segctl.metrics.instances import instance_rows
from segctl.metrics.intervals import intervals, paired_differences
from segctl.metrics.scores import score
from segctl.metrics.table import CountTable, merge_tables

SMALL, LARGE = np.zeros((1, 2, 2), np.uint8), np.zeros((1, 3, 3), np.uint8)


def table(names="ab", classes=3):
    return CountTable(tuple(names), tuple(map(str, range(classes))), np.ones((len(names), classes, 3), np.int64))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: count(SMALL, LARGE, 2),
        lambda: count(SMALL, SMALL + 7, 2),
        lambda: count(SMALL / 2, SMALL, 2),
        lambda: confusion(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2), 2),
        lambda: boundary_counts(SMALL[0], LARGE[0], 2),
        lambda: fill_bins(torch.zeros(1, 2, 2, 2), torch.zeros(1, 3, 3)),
        lambda: instance_rows(SMALL[0], SMALL[0], LARGE[0]),
        lambda: table(names="aa"),
        lambda: merge_tables([]),
        lambda: score(table(), binary=True),
        lambda: intervals(table(), binary=True),
        lambda: paired_differences([table("ab")], [table("ac")]),
    ],
)
def test_a_wrong_argument_is_both_kinds_of_error(wrong):
    with pytest.raises(ValueError, match=r".") as error:
        wrong()
    assert isinstance(error.value, InputError)
