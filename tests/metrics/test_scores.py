"""Scores against a slow reference written from the definitions, and cases of a few pixels by hand."""

import numpy as np
import pytest
from metrics_tables import IGNORED, random_table, table_of

from segctl.errors import InputError
from segctl.metrics.scores import RULES, SCORE_NAMES, per_class, per_image, score, worst, worst_count, worst_images, worst_names
from segctl.metrics.table import CountTable, merge_tables


def mean(values):
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None


def lowest(values, q):
    found = sorted(value for value in values if value is not None)
    return mean(found[: max(1, int(q / 100 * len(found)))])


def slow_ratio(kind, tp, fp, fn):
    part, whole = {"Acc": (tp, tp + fn), "IoU": (tp, tp + fp + fn), "Dice": (2 * tp, 2 * tp + fp + fn)}[kind]
    return part / whole if whole else None


def slow_score(table, binary=False):
    """Every score, from the definitions, in plain Python."""
    images = [image.tolist() for image in table.counts if image[:, [0, 2]].sum()]
    classes = [1] if binary else range(len(table.class_names))
    correct = sum(row[0] for image in images for row in image)
    pixels = sum(row[0] + row[2] for image in images for row in image)
    scores = {"Acc": 100 * correct / pixels if pixels else None}

    def pair(kind, image, c):
        tp, fp, fn = image[c]
        return slow_ratio(kind, tp, fp, fn) if tp + fn + (fp if binary else 0) else None

    for kind in ("Acc", "IoU", "Dice"):
        sums = [[sum(image[c][k] for image in images) for k in range(3)] for c in classes]
        by_image = [mean([pair(kind, image, c) for c in classes]) for image in images]
        by_class = [[pair(kind, image, c) for image in images] for c in classes]
        parts = {
            f"m{kind}_D": mean([slow_ratio(kind, *row) for row in sums]),
            f"m{kind}_I": mean(by_image),
            f"m{kind}_C": mean([mean(column) for column in by_class]),
            f"m{kind}_I_q5": lowest(by_image, 5),
            f"m{kind}_C_q5": mean([lowest(column, 5) for column in by_class]),
            f"m{kind}_I_qbar": mean([lowest(by_image, q) for q in range(10, 101, 10)]),
            f"m{kind}_C_qbar": mean([mean([lowest(column, q) for column in by_class]) for q in range(10, 101, 10)]),
        }
        scores |= {name: None if value is None else 100 * value for name, value in parts.items()}
    return scores


@pytest.mark.parametrize("seed", range(6))
def test_every_score_equals_the_slow_reference(seed):
    table = random_table(seed)
    assert score(table) == pytest.approx(slow_score(table), rel=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_every_binary_score_equals_the_slow_reference(seed):
    table = random_table(seed, num_classes=2, absent=False)
    assert score(table, binary=True) == pytest.approx(slow_score(table, binary=True), rel=1e-12)


def test_the_keys_are_those_of_the_design_and_in_order():
    assert tuple(score(random_table(0))) == SCORE_NAMES
    assert len(SCORE_NAMES) == 22
    assert {"Acc", "mAcc_D", "mIoU_I", "mDice_C", "mIoU_I_q5", "mAcc_C_qbar"} < set(SCORE_NAMES)


# One image of four pixels: truth a a a b, prediction a a b b.  a: tp 2, fn 1 -> IoU 2/3; b: tp 1, fp 1 -> IoU 1/2.
ONE = ((0, 0, 1, 1), (0, 0, 0, 1))
# A second one: truth a a, prediction a a.  a: IoU 1; b is not in it.
TWO = ((0, 0), (0, 0))


def test_one_image_by_hand():
    found = score(table_of([ONE]))
    assert found["Acc"] == pytest.approx(75)
    assert found["mIoU_D"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)
    assert found["mAcc_D"] == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert found["mDice_D"] == pytest.approx(100 * (4 / 5 + 2 / 3) / 2)


def test_two_images_by_hand_tell_the_three_means_apart():
    found = score(table_of([ONE, TWO]))
    assert found["mIoU_D"] == pytest.approx(100 * (4 / 5 + 1 / 2) / 2)
    assert found["mIoU_I"] == pytest.approx(100 * (7 / 12 + 1) / 2)
    assert found["mIoU_C"] == pytest.approx(100 * ((2 / 3 + 1) / 2 + 1 / 2) / 2)
    assert found["mIoU_I_q5"] == pytest.approx(100 * 7 / 12)
    assert found["mIoU_C_q5"] == pytest.approx(100 * (2 / 3 + 1 / 2) / 2)


@pytest.mark.parametrize(
    ("prediction", "label", "miou_d", "miou_i", "miou_c"),
    [
        ((0, 1), (0, 1), 100, 100, 100),
        ((1, 0), (0, 1), 0, 0, 0),
        ((0, 0), (0, 1), 25, 25, 25),  # a: 1/2, b: 0
        ((0, 1), (0, 0), 25, 50, 50),  # a: 1/2, b: 0 in D; b is in no ground truth, so only a counts in I and C
        ((0, 0), (0, 0), 100, 100, 100),  # b is nowhere: n/a
        ((0, 0), (0, IGNORED), 100, 100, 100),
        ((IGNORED, 0), (0, 0), 50, 50, 50),
    ],
)
def test_two_pixels_by_hand(prediction, label, miou_d, miou_i, miou_c):
    found = score(table_of([(prediction, label)]))
    assert (found["mIoU_D"], found["mIoU_I"], found["mIoU_C"]) == (miou_d, miou_i, miou_c)


def test_a_class_nowhere_is_left_out_of_every_mean():
    images = [ONE, TWO]
    assert score(table_of(images, 2)) == score(table_of(images, 5))


def test_an_image_without_a_valid_pixel_is_left_out():
    ignored = ((0, 1, 1), (IGNORED,) * 3)
    assert score(table_of([ONE, ignored, TWO])) == score(table_of([ONE, TWO]))


def test_a_class_that_is_only_predicted_has_iou_0_and_no_acc():
    row = per_class(table_of([((0, 1), (0, 0))]))[1]
    assert row == {
        "class": "b",
        "IoU_D": 0,
        "Acc_D": None,
        "Precision_D": 0,
        "Dice_D": 0,
        "IoU_C": None,
        "Acc_C": None,
        "Precision_C": None,
        "Dice_C": None,
        "images": 0,
    }


def test_precision_is_the_share_of_predicted_pixels_that_are_right():
    rows = per_class(table_of([ONE, TWO], 3))
    assert [row["Precision_D"] for row in rows] == [100, 50, None]
    assert [row["Precision_C"] for row in rows] == [100, 50, None]


def test_no_valid_pixel_at_all_makes_every_score_none():
    assert set(score(table_of([((0, 0), (IGNORED, IGNORED))])).values()) == {None}


def test_no_image_at_all_makes_every_score_none():
    nothing = CountTable((), ("a", "b"), np.zeros((0, 2, 3), np.int64))
    assert set(score(nothing).values()) == {None}
    assert (per_image(nothing), worst_images(nothing, 3)) == ([], [])


@pytest.mark.parametrize(
    ("n", "percent", "kept"),
    [(1, 5, 1), (19, 5, 1), (20, 5, 1), (39, 5, 1), (40, 5, 2), (101, 5, 5), (90, 70, 62), (10, 100, 10), (3, 10, 1)],
)
def test_the_worst_q_percent_are_floor_but_at_least_one(n, percent, kept):
    values = list(map(float, reversed(range(n))))
    assert worst(values, percent) == pytest.approx((kept - 1) / 2)


def test_the_floor_is_computed_as_the_authors_compute_it_for_every_number_of_images():
    differ = 0
    for n in range(1, 5001):
        for q in range(10, 101, 10):
            assert worst_count(q, n) == max(1, int(q / 100 * n))
            differ += worst_count(q, n) != max(1, q * n // 100)
    assert differ == 70  # where whole numbers give another count


def test_worst_cases_of_any_percentage_stand_beside_the_usual_ones():
    table = random_table(3)
    found = score(table, percents=(1, 5, 10))
    assert {name: found[name] for name in SCORE_NAMES} == score(table)
    assert list(found)[len(SCORE_NAMES) :] == list(worst_names((1, 10)))
    for q in (1, 10):
        values = [row["mIoU_I"] for row in per_image(table)]
        assert found[f"mIoU_I_q{q}"] == pytest.approx(lowest(values, q))
        columns = [[row[f"IoU.{name}"] for row in per_image(table)] for name in table.class_names]
        assert found[f"mIoU_C_q{q}"] == pytest.approx(mean([lowest(column, q) for column in columns]))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_the_images_does_not_matter_to_the_last_bit(seed):
    table = random_table(seed)
    order = np.random.default_rng(seed).permutation(len(table.names))
    shuffled = CountTable(tuple(table.names[i] for i in order), table.class_names, table.counts[order])
    assert score(shuffled) == score(table)
    assert per_class(shuffled) == per_class(table)


def test_scores_of_merged_shares_equal_those_of_the_whole():
    table = random_table(9)
    shares = [CountTable(table.names[rank::3], table.class_names, table.counts[rank::3]) for rank in (2, 0, 1)]
    assert score(merge_tables(shares)) == score(table)


def test_worst_scores_are_never_above_the_plain_ones():
    found = score(random_table(5))
    for over in ("I", "C"):
        assert found[f"mIoU_{over}_q5"] <= found[f"mIoU_{over}_qbar"] <= found[f"mIoU_{over}"]


# Foreground is class 1.
@pytest.mark.parametrize(
    ("prediction", "label", "iou"),
    [
        ((1, 0), (1, 1), 50),
        ((1, 0), (0, 0), 0),  # foreground only in the prediction: the pair counts
        ((0, 0), (1, 0), 0),
        ((0, 0), (0, 0), None),  # foreground nowhere: the image is left out
    ],
)
def test_binary_scores_the_foreground_alone(prediction, label, iou):
    found = score(table_of([(prediction, label)]), binary=True)
    assert (found["mIoU_D"], found["mIoU_I"], found["mIoU_C"]) == (iou, iou, iou)


def test_an_image_without_foreground_is_left_out_of_binary_scores():
    images = [((1, 0), (1, 1)), ((0, 0), (0, 0))]
    found = score(table_of(images), binary=True)
    assert (found["mIoU_I"], found["mIoU_C"], found["Acc"]) == (50, 50, 75)


def test_two_classes_without_the_mark_are_two_classes():
    assert score(table_of([((1, 0), (1, 1))]))["mIoU_D"] == 25


def test_binary_rows_are_of_the_foreground():
    table = table_of([((1, 0), (1, 1)), ((0, 0), (0, 0))])
    assert [row["class"] for row in per_class(table, binary=True)] == ["b"]
    rows = per_image(table, binary=True)
    assert [row["mIoU_I"] for row in rows] == [50, None]
    assert "IoU.a" not in rows[0]


def test_binary_wants_two_classes():
    with pytest.raises(InputError) as error:
        score(table_of([ONE], 3), binary=True)
    assert str(error.value) == "binary scores need 2 classes, background and foreground; got 3"


def test_class_rows_agree_with_the_scores():
    table = random_table(1)
    rows, found = per_class(table), score(table)
    for kind in ("IoU", "Acc", "Dice"):
        for over in ("D", "C"):
            assert mean([row[f"{kind}_{over}"] for row in rows]) == pytest.approx(found[f"m{kind}_{over}"])


def test_class_rows_say_how_many_images_count():
    rows = per_class(table_of([ONE, TWO], 3))
    assert [row["images"] for row in rows] == [2, 1, 0]


def test_image_rows_agree_with_the_scores():
    table = random_table(2)
    rows, found = per_image(table), score(table)
    assert mean([row["mIoU_I"] for row in rows]) == pytest.approx(found["mIoU_I"])
    for row in rows:
        assert mean([row[f"IoU.{name}"] for name in table.class_names]) == pytest.approx(row["mIoU_I"])


def test_an_image_row_by_hand():
    (row,) = per_image(table_of([((0, 0, 1, 1, 0), (0, 0, 0, 1, IGNORED))], 3))
    assert row == pytest.approx(
        {
            "image": "000",
            "mIoU_I": 100 * 7 / 12,
            "mAcc_I": 100 * (2 / 3 + 1) / 2,
            "mPrecision_I": 75,
            "mDice_I": 100 * (4 / 5 + 2 / 3) / 2,
            "Acc_I": 75,
            "valid_pixels": 4,
            "IoU.a": 200 / 3,
            "IoU.b": 50,
            "IoU.c": None,
        }
    )


def test_the_row_of_an_ignored_image_is_undefined():
    (row,) = per_image(table_of([((0, 1), (IGNORED, IGNORED))]))
    undefined = dict.fromkeys(("mIoU_I", "mAcc_I", "mPrecision_I", "mDice_I", "Acc_I", "IoU.a", "IoU.b"))
    assert row == undefined | {"image": "000", "valid_pixels": 0}


def test_worst_images_come_worst_first_then_by_name():
    table = table_of([TWO, ONE, ((1, 1), (0, 0)), ((0, 0), (1, 1)), ((0, 0), (IGNORED, IGNORED))])
    found = worst_images(table, 3)
    assert [image.image for image in found] == ["002", "003", "001"]
    assert found[2].miou_i == pytest.approx(100 * 7 / 12)
    assert len(worst_images(table, 99)) == 4


def test_the_rules_name_what_they_govern():
    terms = [rule.term for rule in RULES]
    assert {"mIoU_D", "mIoU_I", "mIoU_C", "_q5", "_qbar", "n/a", "binary"} <= set(terms)
    assert len(set(terms)) == len(terms)
