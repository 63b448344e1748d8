"""Segments counted one by one, false positives shared by hand, and a slow mIoU_K."""

import numpy as np
import pytest

from segctl.errors import InputError
from segctl.metrics.counts import count
from segctl.metrics.instances import InstanceTable, instance_rows, instance_scores, join_instances, segments_of
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


def slow_segments(scenes, num_classes):
    """IoU and Dice of every segment by class, pixel by pixel: a segment is a value of the instance map with one label."""
    found = {index: [] for index in range(num_classes)}
    for guess, truth, instances in scenes.values():
        valid = truth != IGNORED
        for index in range(num_classes):
            strays, whole = (valid & (truth != index) & (guess == index)).sum(), (truth == index).sum()
            for number in np.unique(instances[truth == index]):
                segment = (instances == number) & (truth == index)
                size, hits = segment.sum(), (segment & (guess == index)).sum()
                share = strays * size / whole
                found[index].append((hits / (size + share), 2 * hits / (hits + size + share), size))
    return found


def slow_mean(found, kind, q=100, least=0):
    """The mean over classes of the mean of the lowest q percent of their segments, in percent."""
    columns = [sorted(one[kind] for one in values if one[2] >= least) for values in found.values()]
    return 100 * np.mean([np.mean(column[: max(1, int(q / 100 * len(column)))]) for column in columns if column])


def group_values(scene):
    """The same scene, coded as the panoptic conversion does: what has no instance has the raw id of its class."""
    guess, truth, instances = scene
    return guess, truth, np.where(instances >= 1000, instances, truth)


@pytest.mark.parametrize("seeds", [(0,), (1, 2), (3, 4, 5, 6), range(10, 40)])
def test_segment_scores_equal_the_slow_reference_with_groups(seeds):
    scenes, table, instances = tables(seeds)
    slow = slow_segments({name: group_values(one) for name, one in scenes.items()}, 4)
    found = instance_scores(table, instances, percents=(1, 20))
    for kind, name in enumerate(("mIoU_K", "mDice_K")):
        assert found[name] == pytest.approx(slow_mean(slow, kind), rel=1e-12)
        for q in (1, 5, 20):
            assert found[f"{name}_q{q}"] == pytest.approx(slow_mean(slow, kind, q), rel=1e-12)
        qbar = np.mean([slow_mean(slow, kind, q) for q in range(10, 101, 10)])
        assert found[f"{name}_qbar"] == pytest.approx(qbar, rel=1e-12)
    few = instance_scores(table, instances, segment_px=12)
    assert few["mIoU_K"] == pytest.approx(slow_mean(slow, 0, least=12), rel=1e-12)
    assert few["mIoU_K"] != found["mIoU_K"]


def test_a_missed_group_is_one_more_segment_by_hand():
    # A person of 100 px all right, a group of 100 px all missed, 50 px false: (100 / (100 + 25) + 0) / 2 = 0.4 for the person.
    label, guess, instances = (np.zeros((1, 400), dtype) for dtype in (np.uint8, np.uint8, np.uint16))
    label[0, :200], instances[0, :100], instances[0, 100:200] = 1, 24_000, 24
    guess[0, :100], guess[0, 200:250] = 1, 1
    table = CountTable(("x",), ("road", "person"), count(guess[None], label[None], 2))
    found = instance_scores(table, join_instances([("x", instance_rows(guess, label, instances))]))
    assert found["IoU_K.person"] == pytest.approx(40)
    assert found["IoU_K.road"] == pytest.approx(100 * 150 / 300)
    assert found["mIoU_K"] == pytest.approx(45)  # 58.33 where the group is left out


def test_instances_by_hand():
    label = np.array([[1, 1, 1, 1, 0, 0, 1, 1]], np.uint8)
    instances = np.array([[1000, 1000, 1000, 1000, 0, 0, 1001, 1001]], np.uint16)
    guess = np.array([[1, 1, 1, 0, 1, 1, 1, 1]], np.uint8)
    rows = instance_rows(guess, label, instances)
    assert rows.tolist() == [[1, 4, 3, 3], [1, 2, 2, 2]]
    table = CountTable(("x",), ("a", "b"), count(guess[None], label[None], 2))
    # Two false positives on six pixels of instances: 4/3 for the first, 2/3 for the second.
    expected = np.array([3 / (4 + 4 / 3), 2 / (2 + 2 / 3)])
    segments = segments_of(table, join_instances([("x", rows)]))
    np.testing.assert_allclose(segments.ratios()["IoU"], [*expected, 0])
    found = instance_scores(table, join_instances([("x", rows)]))
    assert found["IoU_K.b"] == pytest.approx(100 * expected.mean())
    assert found["IoU_K.a"] == pytest.approx(0)  # no instances: its region in the image counts as one, IoU 0/3
    assert found["mIoU_K"] == pytest.approx(50 * expected.mean())
    assert found["mIoU_K_q5"] == pytest.approx(50 * expected.min())


def test_without_any_instance_miou_k_is_miou_c():
    scenes, table, _ = tables((0, 1))
    none = join_instances([(name, np.zeros((0, 4), np.int64)) for name in scenes])
    from segctl.metrics.scores import score

    found = score(table)
    assert instance_scores(table, none)["mIoU_K"] == pytest.approx(found["mIoU_C"])
    assert instance_scores(table, none)["mDice_K_qbar"] == pytest.approx(found["mDice_C_qbar"])


def test_instances_of_another_evaluation_are_refused():
    _, table, instances = tables((0, 1))
    rows = instances.rows.copy()
    rows[0, 1] += 10_000
    with pytest.raises(InputError, match="the instances have other pixels than the counts"):
        instance_scores(table, InstanceTable(instances.names, instances.image, rows))


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
