"""Category IoU and iIoU against the benchmark's rules on raw label ids, written out slowly."""

import numpy as np
import pytest
from cityscapes_labels import AVERAGE_SIZE, BENCHMARK, CATEGORIES, LABELS, NAMES, STAND_IN

from segctl.metrics.cityscapes_scores import category_scores, instance_weighted_scores
from segctl.metrics.counts import confusion, count
from segctl.metrics.instances import instance_rows, join_instances
from segctl.metrics.scores import score
from segctl.metrics.table import CountTable


def scene(seed, shape=(48, 64)):
    """Raw prediction, raw label and instance map of one image."""
    random = np.random.default_rng(seed)
    label = random.integers(0, 24, (shape[0] // 8, shape[1] // 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    instances = label.astype(np.uint16)
    for number in range(12):
        raw = int(random.choice([24, 25, 26, 27, 28, 29, 30, 31, 32, 33]))
        top, left = random.integers(0, shape[0] - 9), random.integers(0, shape[1] - 9)
        region = np.s_[top : top + random.integers(2, 10), left : left + random.integers(2, 10)]
        label[region], instances[region] = raw, raw * 1000 + number if number < 10 else raw
    wrong = random.random((shape[0] // 4, shape[1] // 4)).repeat(4, 0).repeat(4, 1) < 0.35
    prediction = np.where(wrong, random.integers(0, 34, shape), label).astype(np.uint8)
    return prediction, label, instances


def average(values):
    found = [value for value in values if value is not None]
    return sum(found) / len(found)


def official(scenes):
    """The benchmark's numbers from one matrix of raw ids and a loop over instances, in percent."""
    matrix = np.zeros((34, 34))
    weighted = {raw: [0.0, 0.0] for raw in LABELS}
    of_category = {"human": [0.0, 0.0], "vehicle": [0.0, 0.0]}
    for prediction, label, instances in scenes:
        for truth in LABELS:
            for guess in LABELS:
                matrix[truth, guess] += ((label == truth) & (prediction == guess)).sum()
        for number in np.unique(instances[instances > 1000]):
            raw = int(number) // 1000
            name, category, scored, _ = LABELS[raw]
            if not scored:
                continue
            mask = instances == number
            weight = AVERAGE_SIZE[name] / mask.sum()
            right = (prediction[mask] == raw).sum()
            friends = [other for other, row in LABELS.items() if row[1] == category]
            near = np.isin(prediction[mask], friends).sum()
            weighted[raw] += np.array([right, mask.sum() - right]) * weight
            of_category[category] += np.array([near, mask.sum() - near]) * weight
    scored = [raw for raw, row in LABELS.items() if row[2]]
    result = {}
    for raw in scored:
        strays = sum(matrix[other, raw] for other in scored if other != raw)
        whole = matrix[raw].sum() + strays
        result[f"IoU.{LABELS[raw][0]}"] = matrix[raw, raw] / whole if whole else None
        if LABELS[raw][3]:
            right, missed = weighted[raw]
            whole = right + missed + strays
            result[f"iIoU.{LABELS[raw][0]}"] = right / whole if whole else None
    for category in CATEGORIES:
        inside = [raw for raw in scored if LABELS[raw][1] == category]
        outside = [raw for raw in scored if LABELS[raw][1] != category]
        hits = matrix[np.ix_(inside, inside)].sum()
        whole = matrix[inside].sum() + matrix[np.ix_(outside, inside)].sum()
        result[f"IoU_category.{category}"] = hits / whole if whole else None
        if category in of_category:
            right, missed = of_category[category]
            everything = [raw for raw, row in LABELS.items() if row[1] == category]
            strays = matrix[np.ix_(outside, everything)].sum()
            result[f"iIoU_category.{category}"] = right / (right + missed + strays)
    for mean, kind in (("mIoU_D", "IoU."), ("miIoU", "iIoU."), ("mIoU_category", "IoU_category."),
                       ("miIoU_category", "iIoU_category.")):  # fmt: skip
        result[mean] = average([value for name, value in result.items() if name.startswith(kind)])
    return {name: None if value is None else 100 * value for name, value in result.items()}


def ours(scenes):
    """The same through train ids, counts and instance rows."""
    table = np.full(256, 255, np.uint8)
    guesses = np.full(256, 250, np.uint8)
    for raw, (name, _, scored, _) in LABELS.items():
        if scored:
            table[raw] = guesses[raw] = NAMES.index(name)
        elif name in STAND_IN:
            guesses[raw] = STAND_IN[name]
    prediction = np.stack([guesses[prediction] for prediction, _, _ in scenes])
    label = np.stack([table[label] for _, label, _ in scenes])
    rows = [
        (f"{index}", instance_rows(prediction[index], label[index], scenes[index][2], BENCHMARK.of_ids(NAMES)))
        for index in range(len(scenes))
    ]
    counts = CountTable(tuple(name for name, _ in rows), tuple(NAMES), count(prediction, label, 19))
    unscored = BENCHMARK.count_unscored(prediction, label, 19)
    matrix = confusion(prediction, label, 19)
    return (
        {"mIoU_D": score(counts)["mIoU_D"]}
        | category_scores(BENCHMARK, counts, matrix)
        | instance_weighted_scores(BENCHMARK, counts, matrix, join_instances(rows), unscored)
    )


@pytest.mark.parametrize("seeds", [(0,), (1, 2), (3, 4, 5)])
def test_every_number_of_the_benchmark_comes_out(seeds):
    scenes = [scene(seed) for seed in seeds]
    expected, found = official(scenes), ours(scenes)
    assert len(found) == 4 + 7 + 8 + 2
    for name, value in found.items():
        assert value == pytest.approx(expected[name], abs=1e-9), name


def test_two_instances_by_hand():
    # A car of 2 pixels, right, and one of 4, wrong; a road pixel predicted as car.
    label = np.array([[26, 26, 26, 26, 26, 26, 7]], np.uint8)
    instances = np.array([[26000, 26000, 26001, 26001, 26001, 26001, 7]], np.uint16)
    prediction = np.array([[26, 26, 7, 7, 7, 7, 26]], np.uint8)
    size = AVERAGE_SIZE["car"]
    found = ours([(prediction, label, instances)])
    assert found["iIoU.car"] == pytest.approx(100 * size / (2 * size + 1))
    assert found["iIoU_category.vehicle"] == found["iIoU.car"]
    assert found["IoU_category.vehicle"] == pytest.approx(100 * 2 / 7)
    assert found["iIoU.bus"] is None
