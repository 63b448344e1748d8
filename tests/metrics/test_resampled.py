"""Scores of resamples against scoring the resampled images one by one."""

import numpy as np
import pytest
from metrics_tables import random_table

from segctl.metrics.resampled import lowest_first, prepare, resample, worst_of
from segctl.metrics.scores import QBAR_PERCENTS, SCORE_NAMES, WORST_PERCENT, per_class, score, worst
from segctl.metrics.table import CountTable


def drawn_table(table, draws):
    """The table that holds each image as often as it was drawn."""
    rows = [row for row, times in enumerate(draws) for _ in range(times)]
    return CountTable(tuple(f"{index:04d}" for index in range(len(rows))), table.class_names, table.counts[rows])


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_every_score_of_a_resample_is_the_score_of_the_drawn_images(seed, binary):
    table = random_table(seed, images=23, num_classes=2 if binary else 4, absent=not binary)
    draws = np.random.default_rng(seed).multinomial(23, [1 / 23] * 23, size=7).astype(np.int32)
    found = resample(prepare(table, binary), draws)
    for row, times in enumerate(draws):
        expected = score(drawn_table(table, times), binary=binary)
        for name in SCORE_NAMES:
            wanted = np.nan if expected[name] is None else expected[name]
            assert found.scores[name][row] == pytest.approx(wanted, rel=1e-9, nan_ok=True), name
        classes = [line["IoU_D"] for line in per_class(drawn_table(table, times), binary=binary)]
        wanted = [np.nan if value is None else value for value in classes]
        np.testing.assert_allclose(found.iou_d[row], wanted, rtol=1e-9)


def test_a_resample_in_which_nothing_is_scored_is_undefined():
    table = random_table(1, images=5)
    found = resample(prepare(table, False), np.zeros((2, 5), np.int32))
    assert all(np.isnan(values).all() for values in found.scores.values())


@pytest.mark.parametrize("seed", range(3))
def test_the_worst_of_drawn_values_are_those_of_the_list_written_out(seed):
    random = np.random.default_rng(seed)
    values = random.random(30).round(1)  # with ties
    values[random.random(30) < 0.2] = np.nan
    draws = random.integers(0, 4, (9, 30)).astype(np.int32)
    (found,) = worst_of([values], lowest_first(values), draws)
    for row, times in enumerate(draws):
        written_out = np.repeat(values, times)
        average = np.mean([worst(written_out, q) for q in QBAR_PERCENTS])
        np.testing.assert_allclose(found[:, row], [worst(written_out, WORST_PERCENT), average])


def test_values_that_are_all_undefined_have_no_worst():
    nothing = np.full(3, np.nan)
    assert np.isnan(worst_of([nothing], lowest_first(nothing), np.ones((2, 3), np.int32))[0]).all()
