"""Scores over groups, by hand."""

import numpy as np
import pytest

from segctl.metrics.calibration import BINS, CalibrationTable, calibration_scores
from segctl.metrics.cases import case_scores, rows_of_groups
from segctl.metrics.raters import RaterTable, rater_scores
from segctl.metrics.table import CountTable


def test_counts_of_a_patient_are_summed_before_the_ratio() -> None:
    """Patient a: 1 of 4 pixels of the union and 3 of 4, so 4 / 8; patient b: 1 / 1. Patient c shows nothing and is left out."""
    counts = np.zeros((4, 2, 3), np.int64)
    counts[:, 0, 0] = 100
    counts[0, 1], counts[1, 1], counts[2, 1] = (1, 1, 2), (3, 1, 0), (1, 0, 0)
    table = CountTable(("1", "2", "3", "4"), ("sane", "ill"), counts, ("a", "a", "b", "c"))
    found = case_scores(table, binary=True)
    assert found["mIoU_G"] == pytest.approx(100 * (4 / 8 + 1) / 2)
    assert found["mDice_G"] == pytest.approx(100 * (8 / 12 + 1) / 2)
    assert found["mAcc_G"] == pytest.approx(100 * (4 / 6 + 1) / 2)


def test_one_group_or_none_has_no_such_score() -> None:
    counts = np.ones((2, 2, 3), np.int64)
    for groups in (None, ("a", "a")):
        assert case_scores(CountTable(("1", "2"), ("sane", "ill"), counts, groups)) == {}
        assert rows_of_groups(groups) == []


def test_calibration_and_agreement_of_a_patient_are_those_of_its_pixels() -> None:
    random = np.random.default_rng(0)
    bins = random.integers(1, 9, (4, 3, BINS, 3)).astype(float)
    rows = rows_of_groups(("b", "a", "b", "a"))
    alone = [calibration_scores(CalibrationTable(("x",), bins[[*pair]].sum(0)[None])) for pair in ((1, 3), (0, 2))]
    found = calibration_scores(CalibrationTable(tuple("1234"), bins), groups=rows)
    for name in ("ECE", "SCE"):
        assert found[f"{name}_G"] == pytest.approx(np.mean([one[f"{name}_D"] for one in alone]))
    counts = random.integers(1, 9, (4, 9, 2, 3))
    alone = [rater_scores(RaterTable(("x",), counts[[*pair]].sum(0)[None])) for pair in ((1, 3), (0, 2))]
    assert rater_scores(RaterTable(tuple("1234"), counts), groups=rows)["BDice_G"] == pytest.approx(
        np.mean([one["BDice_D"] for one in alone])
    )
