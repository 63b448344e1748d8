"""Instances counted one by one, false positives shared by hand, and a slow mIoU_K."""

import numpy as np
import pytest

from segctl.errors import InputError
from segctl.metrics.counts import count
from segctl.metrics.instances import instance_iou, instance_rows, instance_scores, join_instances
from segctl.metrics.table import CountTable

IGNORED = 255


def scene(seed, num_classes=4, shape=(24, 30)):
    """Prediction, label and instance map; classes 2 and 3 have instances, a few pixels of them belong to none."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 2, (shape[0] // 6, shape[1] // 6)).repeat(6, 0).repeat(6, 1).astype(np.uint8)
    instances = np.zeros(shape, np.uint16)
    for number in range(5):
        top, left = random.integers(0, shape[0] - 6), random.integers(0, shape[1] - 6)
        region = np.s_[top : top + random.integers(2, 7), left : left + random.integers(2, 7)]
        label[region] = 2 + number % 2
        instances[region] = (24 + number % 2) * 1000 + number
    crowd = np.s_[0:2, 0:4]
    label[crowd], instances[crowd] = 2, 24
    prediction = np.where(random.random(shape) < 0.7, label, random.integers(0, num_classes + 1, shape)).astype(np.uint8)
    label[random.random(shape) < 0.1] = IGNORED
    return prediction, label, instances


def tables(seeds, num_classes=4):
    scenes = {f"s{seed}": scene(seed, num_classes) for seed in seeds}
    counts = np.concatenate([count(guess[None], truth[None], num_classes) for guess, truth, _ in scenes.values()])
    table = CountTable(tuple(scenes), tuple("abcdefgh"[:num_classes]), counts)
    return scenes, table, join_instances([(name, instance_rows(*one)) for name, one in scenes.items()])


def slow_scores(scenes, num_classes):
    """mIoU_K from its definition, pixel by pixel."""
    values = {index: [] for index in range(num_classes)}
    regions = {index: [] for index in range(num_classes)}
    for guess, truth, instances in scenes.values():
        valid = truth != IGNORED
        for index in range(num_classes):
            hits, strays = ((truth == index) & (guess == index)).sum(), (valid & (truth != index) & (guess == index)).sum()
            if (truth == index).any():
                regions[index].append(hits / ((truth == index).sum() + strays))
            numbers = sorted({int(number) for number in instances[truth == index] if number >= 1000})
            sizes = [((instances == number) & (truth == index)).sum() for number in numbers]
            for number, size in zip(numbers, sizes, strict=True):
                hits = ((instances == number) & (truth == index) & (guess == index)).sum()
                values[index].append(hits / (size + strays * size / sum(sizes)))
    means = [np.mean(values[index] or regions[index]) for index in range(num_classes) if values[index] or regions[index]]
    return 100 * np.mean(means)


@pytest.mark.parametrize("seeds", [(0,), (1, 2), (3, 4, 5, 6)])
def test_miou_k_equals_the_slow_reference(seeds):
    scenes, table, instances = tables(seeds)
    assert instance_scores(table, instances)["mIoU_K"] == pytest.approx(slow_scores(scenes, 4), rel=1e-12)


def test_instances_by_hand():
    label = np.array([[1, 1, 1, 1, 0, 0, 1, 1]], np.uint8)
    instances = np.array([[1000, 1000, 1000, 1000, 0, 0, 1001, 1001]], np.uint16)
    guess = np.array([[1, 1, 1, 0, 1, 1, 1, 1]], np.uint8)
    rows = instance_rows(guess, label, instances)
    assert rows.tolist() == [[1, 4, 3, 3], [1, 2, 2, 2]]
    table = CountTable(("x",), ("a", "b"), count(guess[None], label[None], 2))
    # Two false positives on six pixels of instances: 4/3 for the first, 2/3 for the second.
    expected = np.array([3 / (4 + 4 / 3), 2 / (2 + 2 / 3)])
    np.testing.assert_allclose(instance_iou(table, join_instances([("x", rows)])), expected)
    found = instance_scores(table, join_instances([("x", rows)]))
    assert found["IoU_K.b"] == pytest.approx(100 * expected.mean())
    assert found["IoU_K.a"] == pytest.approx(0)  # no instances: its region in the image counts as one, IoU 0/3
    assert found["mIoU_K"] == pytest.approx(50 * expected.mean())


def test_without_any_instance_miou_k_is_miou_c():
    scenes, table, _ = tables((0, 1))
    none = join_instances([(name, np.zeros((0, 4), np.int64)) for name in scenes])
    from segctl.metrics.scores import score

    assert instance_scores(table, none)["mIoU_K"] == pytest.approx(score(table)["mIoU_C"])


def test_a_class_in_no_ground_truth_is_left_out():
    _, table, instances = tables((0,), num_classes=5)
    found = instance_scores(table, instances)
    assert found["IoU_K.e"] is None
    assert found["mIoU_K"] is not None


def test_categories_count_a_mix_up_inside_them_as_right():
    label = np.array([[1, 1, 1]], np.uint8)
    categories = np.full(256, -1)
    categories[[1, 2]] = 0
    rows = instance_rows(np.array([[1, 2, 0]], np.uint8), label, np.full((1, 3), 1000, np.uint16), categories)
    assert rows.tolist() == [[1, 3, 1, 2]]


def test_ignored_pixels_are_in_no_instance():
    label = np.array([[1, IGNORED, IGNORED]], np.uint8)
    rows = instance_rows(np.ones((1, 3), np.uint8), label, np.array([[1000, 1000, 1001]], np.uint16))
    assert rows.tolist() == [[1, 1, 1, 1]]


def test_an_image_without_instances_has_no_rows():
    ids = np.zeros((2, 2), np.uint8)
    assert instance_rows(ids, ids, np.full((2, 2), 7, np.uint16)).shape == (0, 4)


def test_instances_follow_their_images_into_another_order():
    _, _, instances = tables((0, 1, 2))
    moved = instances.ordered(("s2", "s0", "s1"))
    assert moved.names == ("s2", "s0", "s1")
    for name in moved.names:
        mine = instances.rows[instances.image == instances.names.index(name)]
        np.testing.assert_array_equal(moved.rows[moved.image == moved.names.index(name)], mine)


def test_instances_of_other_images_are_refused():
    _, table, instances = tables((0, 1))
    with pytest.raises(InputError, match="the instances and the counts are of different images"):
        instance_scores(table, instances.ordered(("s1", "s0")))


def test_shapes_that_differ_are_refused():
    with pytest.raises(InputError) as error:
        instance_rows(np.zeros((1, 2), np.uint8), np.zeros((1, 2), np.uint8), np.zeros((2, 1), np.uint16))
    assert str(error.value) == (
        "got a prediction of shape (1, 2), a label of (1, 2) and an instance map of (2, 1), wanted three of the same shape"
    )
