"""Intervals: what is drawn, how wide they come out, what they say of themselves, and pairs of runs."""

import dataclasses

import numpy as np
import pytest
from metrics_tables import random_table, table_of

from segctl.errors import InputError
from segctl.metrics.intervals import Bootstrap, differences, intervals, mean_differences, mean_intervals
from segctl.metrics.scores import SCORE_NAMES, per_image, score

QUICK = Bootstrap(resamples=500)


def with_groups(table, groups):
    return dataclasses.replace(table, groups=tuple(groups))


def with_names(table, names):
    return dataclasses.replace(table, names=tuple(names))


def images_of(rights):
    """Images of 100 pixels of one class, so many of them right."""
    return table_of([((0,) * right + (1,) * (100 - right), (0,) * 100) for right in rights])


def test_every_score_has_an_interval_around_it():
    table = random_table(0, images=60)
    found, scores = intervals(table, how=QUICK), score(table)
    assert tuple(found.scores) == SCORE_NAMES
    for name in SCORE_NAMES:
        low, high = found.scores[name]
        assert low - 1e-9 <= scores[name] <= high + 1e-9, name


def test_the_interval_of_a_mean_is_about_two_standard_errors_wide_on_each_side():
    table = random_table(3, images=200)
    values = np.array([row["mIoU_I"] for row in per_image(table)])
    low, high = intervals(table, how=Bootstrap(4000)).scores["mIoU_I"]
    error = values.std() / np.sqrt(len(values))
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.05)
    assert (low + high) / 2 == pytest.approx(values.mean(), abs=0.2 * error)


def test_two_images_by_hand():
    # Resamples: both the first (1/4), both the second (1/4), one of each (1/2): mIoU_I is 20, 80 or 50.
    found = intervals(images_of((20, 80)), how=Bootstrap(2000)).scores["mIoU_I"]
    assert found == pytest.approx((20, 80))
    half = intervals(images_of((20, 80)), how=Bootstrap(2000, confidence=20)).scores["mIoU_I"]
    assert half == pytest.approx((50, 50))


def test_equal_images_leave_no_doubt():
    found = intervals(table_of([((0, 0, 1, 1), (0, 0, 0, 1))] * 12), how=QUICK)
    assert all(low == pytest.approx(high) for low, high in found.scores.values())


def test_the_same_seed_gives_the_same_interval_and_another_one_another():
    table = random_table(1)
    assert intervals(table, how=QUICK) == intervals(table, how=QUICK)
    assert intervals(table, how=QUICK).scores != intervals(table, how=Bootstrap(500, seed=1)).scores


def test_threads_change_no_number():
    first = random_table(2, images=40)
    threaded = Bootstrap(500, threads=3)
    assert intervals(first, how=threaded) == intervals(first, how=QUICK)
    assert differences(first, better(first), how=threaded) == differences(first, better(first), how=QUICK)


def test_a_score_that_is_undefined_has_no_interval():
    nothing = table_of([((0, 0), (255, 255))])
    assert set(intervals(nothing, how=QUICK).scores.values()) == {None}
    assert intervals(random_table(0), how=QUICK).per_class["d"] is None


def test_classes_have_intervals_of_their_iou_d():
    found = intervals(random_table(2, images=40), how=QUICK).per_class
    assert list(found) == ["a", "b", "c", "d"]
    assert found["a"].low < found["a"].high


def test_binary_intervals_are_of_the_foreground():
    table = random_table(0, num_classes=2, absent=False, images=40)
    found = intervals(table, binary=True, how=QUICK)
    assert list(found.per_class) == ["b"]
    assert found.scores["mIoU_D"] == found.per_class["b"]


def test_images_without_valid_pixels_are_never_drawn():
    table = random_table(0, images=20)
    empty = dataclasses.replace(
        table, names=(*table.names, "empty"), counts=np.concatenate([table.counts, np.zeros_like(table.counts[:1])])
    )
    assert intervals(empty, how=QUICK).scores == intervals(table, how=QUICK).scores


def test_images_of_a_group_are_drawn_together():
    """Groups of two images alike are one image each: worst cases aside, which count how many images there are."""
    table = random_table(0, images=8)
    twice = dataclasses.replace(
        table,
        names=tuple(f"{index:03d}" for index in range(16)),
        counts=table.counts.repeat(2, axis=0),
        groups=tuple("aabbccddeeffgghh"),
    )
    single, grouped = (intervals(found, how=QUICK).scores for found in (table, twice))
    for name in ("Acc", "mIoU_D", "mIoU_I", "mIoU_C"):
        assert grouped[name] == pytest.approx(single[name]), name
    apart = intervals(dataclasses.replace(twice, groups=None), how=QUICK).scores["mIoU_I"]
    assert apart.high - apart.low < 0.85 * (grouped["mIoU_I"].high - grouped["mIoU_I"].low)


def test_a_single_group_falls_back_to_images():
    table = random_table(0, images=30)
    assert intervals(with_groups(table, "a" * 30), how=QUICK).scores == intervals(table, how=QUICK).scores


def test_the_method_says_what_was_drawn_and_how_often():
    table = random_table(0, images=24)
    assert intervals(table).method == "95 % percentile bootstrap over 24 images, 2,000 resamples, seed 0"
    grouped = with_groups(table, "abcdefghijkl" * 2)
    assert intervals(grouped, how=Bootstrap(100, seed=3, confidence=90)).method == (
        "90 % percentile bootstrap over 12 groups of 24 images, 100 resamples, seed 3"
    )


def test_a_run_does_not_differ_from_itself():
    table = random_table(0, images=40)
    found = differences(table, table, how=QUICK)
    assert set(found.scores.values()) == {(0.0, 0.0, 0.0)}


def better(table, points=3):
    """The same images with some misses of class a turned into hits."""
    counts = table.counts.copy()
    fixed = np.minimum(points, counts[:, 0, 2])
    counts[:, 0, 0] += fixed
    counts[:, 0, 2] -= fixed
    return dataclasses.replace(table, counts=counts)


def test_a_difference_is_the_second_minus_the_first_and_its_interval_holds_it():
    first = random_table(0, images=60)
    second = better(first)
    found = differences(first, second, how=QUICK)
    before, after = score(first), score(second)
    for name in ("mIoU_D", "mIoU_I", "mIoU_C", "Acc"):
        value, low, high = found.scores[name]
        assert value == pytest.approx(after[name] - before[name])
        assert 0 < low < value < high
    assert found.per_class["a"].value > 0
    assert found.per_class["d"] is None


def test_pairing_makes_a_difference_surer_than_two_intervals():
    first = random_table(5, images=60)
    second = better(first)
    paired = differences(first, second, how=QUICK).scores["mIoU_I"]
    alone = intervals(first, how=QUICK).scores["mIoU_I"]
    assert paired.high - paired.low < 0.5 * (alone.high - alone.low)


def test_the_order_of_the_second_runs_images_does_not_matter():
    first = random_table(0, images=20)
    second = better(first)
    shuffled = second.rows(second.names[::-1])
    assert differences(first, shuffled, how=QUICK) == differences(first, second, how=QUICK)


def test_runs_of_other_images_are_not_compared():
    table = random_table(0, images=3)
    with pytest.raises(InputError) as error:
        differences(table, with_names(table, ["000", "001", "007"]))
    assert str(error.value) == "cannot compare runs that were not scored on the same images: only one of them has '002'"


def test_runs_of_other_classes_are_not_compared():
    table = random_table(0, images=3)
    with pytest.raises(InputError, match="cannot compare counts of classes a, b, c, d and a, b, c, z"):
        differences(table, dataclasses.replace(table, class_names=("a", "b", "c", "z")))


def test_runs_against_other_labels_are_not_compared():
    table = images_of((20, 80))
    counts = table.counts.copy()
    counts[1, 0, 0] += 5
    with pytest.raises(InputError) as error:
        differences(table, dataclasses.replace(table, counts=counts))
    assert str(error.value) == (
        "cannot compare runs that were not scored against the same labels: image '001' has 100 valid pixels in one and "
        "105 in the other"
    )


def test_the_mean_over_runs_is_resampled_as_one():
    tables = [random_table(0, images=40)] * 2
    assert mean_intervals(tables, how=QUICK) == intervals(tables[0], how=QUICK)


def test_the_interval_of_two_runs_mean_is_that_of_the_mean_of_their_scores():
    one, other = np.random.default_rng(0).integers(0, 50, (2, 12)) * 2
    found = mean_intervals([images_of(one), images_of(other)], how=QUICK).scores["mIoU_I"]
    assert found == pytest.approx(intervals(images_of((one + other) // 2), how=QUICK).scores["mIoU_I"])


def test_the_difference_of_means_over_seeds_lies_between_those_of_the_seeds():
    tables = [random_table(0, images=20)] * 2
    better_ones = [better(tables[0], 2), better(tables[0], 6)]
    both = mean_differences(tables, better_ones, how=QUICK).scores["mIoU_D"].value
    alone = [differences(tables[0], one, how=QUICK).scores["mIoU_D"].value for one in better_ones]
    assert both == pytest.approx(sum(alone) / 2)
