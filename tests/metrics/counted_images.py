"""Seven small images with everything counted that an evaluation can count."""

import dataclasses

import numpy as np
import torch
from cityscapes_labels import BENCHMARK, CATEGORIES

from segctl.metrics.boundary import boundary_counts
from segctl.metrics.calibration import fill_bins
from segctl.metrics.counts import pairs
from segctl.metrics.instances import instance_rows
from segctl.metrics.tally import EvaluationCounts, ImageCounts, Tally

NAMES = [f"im/{index:02d}" for index in range(7)]
CLASSES = [name for names in CATEGORIES.values() for name in names]
GROUPS = {name: f"drive {index // 3}" for index, name in enumerate(NAMES)}


def maps(name):
    random = np.random.default_rng(NAMES.index(name))
    label = random.integers(0, 19, (5, 6)).repeat(4, 0).repeat(4, 1).astype(np.uint8)
    prediction = np.where(random.random(label.shape) < 0.6, label, random.integers(0, 21, label.shape)).astype(np.uint8)
    instances = np.where(label > 10, 1000 * (label.astype(np.int32) + 13) + np.arange(24) // 6, label).astype(np.uint16)
    label[0] = 255
    return prediction, label, instances


def everything(name):
    prediction, label, instances = maps(name)
    probabilities = torch.nn.functional.one_hot(torch.from_numpy(prediction).long().clamp(max=18), 19).float() * 0.8 + 0.2 / 19
    return ImageCounts(
        name,
        pairs(prediction[None], label[None], 19)[0],
        boundary_counts(prediction, label, 19),
        instance_rows(prediction, label, instances, BENCHMARK.of_ids(CLASSES)),
        fill_bins(probabilities.permute(2, 0, 1)[None], torch.from_numpy(label)[None])[0].numpy(),
        np.full(19, NAMES.index(name)),
    )


def only_pairs(name):
    prediction, label, _ = maps(name)
    return ImageCounts(name, pairs(prediction[None], label[None], 19)[0])


def counted(names, counter=everything):
    tally = Tally(CLASSES, GROUPS)
    for name in names:
        tally.add(counter(name))
    return tally.counts()


def assert_same(one: EvaluationCounts, other: EvaluationCounts):
    for name in ("table", "boundary", "instances", "calibration"):
        mine, theirs = (getattr(found, name) for found in (one, other))
        assert (mine is None) == (theirs is None)
        for field in dataclasses.fields(mine) if mine is not None else ():
            mine_, theirs_ = getattr(mine, field.name), getattr(theirs, field.name)
            np.testing.assert_array_equal(mine_, theirs_, err_msg=f"{name}.{field.name}")
    np.testing.assert_array_equal(one.confusion, other.confusion)
    np.testing.assert_array_equal(one.unscored, other.unscored)
