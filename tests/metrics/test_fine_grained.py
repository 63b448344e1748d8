"""The metric object, as a torchmetrics.Metric and without torchmetrics."""

import importlib.util
import json
import math
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import segctl
from segctl.errors import ArgumentError

# Neither is imported here: torchmetrics takes 2 s, which each worker would spend when it collects the tests.
pytestmark = pytest.mark.skipif(importlib.util.find_spec("torchmetrics") is None, reason="needs the extra torchmetrics")

CLASSES = ["road", "tree", "sky"]


def draw(count=5, seed=0):
    random = np.random.default_rng(seed)
    labels = [random.choice([0, 0, 1, 2, 255], (12 + n, 17)).astype(np.uint8) for n in range(count)]
    preds = [
        np.where(random.random(label.shape) < 0.7, label, random.integers(0, 3, label.shape)).astype(np.uint8) for label in labels
    ]
    return [f"im-{n}" for n in range(count)], [np.where(pred == 255, 0, pred) for pred in preds], labels


def filled(names, preds, labels, **options):
    metric = segctl.metrics.FineGrainedIoU(3, class_names=CLASSES, **options)
    for name, pred, label in zip(names, preds, labels, strict=True):
        metric.update(torch.from_numpy(pred), torch.from_numpy(label), name)
    return metric


def test_one_image_counted_by_hand():
    import torchmetrics

    metric = segctl.metrics.FineGrainedIoU(2)
    metric.update(torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 1, 1, 255]]))
    scores = metric.compute()
    assert isinstance(metric, torchmetrics.Metric)
    assert (scores["mIoU_D"], scores["mIoU_I"], scores["Acc"]) == (50.0, 50.0, pytest.approx(200 / 3))
    assert metric.table.names == ("image 0",)


def test_the_scores_are_those_of_eval_on_the_same_maps(tmp_path):
    names, preds, labels = draw()
    for name, pred, label in zip(names, preds, labels, strict=True):
        for folder, ids in (("pred", pred), ("gt", label)):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(ids).save(tmp_path / folder / f"{name}.png")
    found = segctl.evaluate_files(tmp_path / "pred", tmp_path / "gt", CLASSES)
    scores = filled(names, preds, labels).compute()
    assert scores["mIoU_C_q5"] > 0
    assert {name: round(value, 2) for name, value in scores.items()} == {name: round(found[name], 2) for name in scores}


def test_scores_of_classes_are_taken_by_their_largest_and_batches_do_not_matter():
    names, preds, labels = draw(4)
    size = (slice(0, 12), slice(0, 17))
    pred, label = (torch.from_numpy(np.stack([ids[size] for ids in maps])) for maps in (preds, labels))
    whole, single = segctl.metrics.FineGrainedIoU(3), segctl.metrics.FineGrainedIoU(3)
    logits = torch.nn.functional.one_hot(pred.long(), 3).permute(0, 3, 1, 2).float()
    batch = whole(logits, label, names)
    for name, one, ids in zip(names, pred, label, strict=True):
        single.update(one.numpy(), ids.numpy(), name)
    assert batch == whole.compute() == single.compute()


def test_a_repeated_image_counts_once_and_a_contradiction_is_refused():
    names, preds, labels = draw()
    metric = filled(names, preds, labels)
    before = metric.compute()
    metric.update(preds[0], labels[0], names[0])
    assert metric.compute() == before
    metric.update(labels[0] * 0, labels[0], names[0])
    with pytest.raises(ArgumentError, match="image 'im-0' came twice with other counts"):
        metric.table  # noqa: B018


def test_merging_resetting_and_pickling():
    names, preds, labels = draw()
    whole, first, second = (filled(names[part], preds[part], labels[part]) for part in map(slice, (0, 0, 2), (5, 2, 5)))
    first.compute()
    first.merge(pickle.loads(pickle.dumps(second)))
    assert first.compute() == whole.compute()
    first.reset()
    assert all(map(math.isnan, first.compute().values()))
    with pytest.raises(ArgumentError, match="cannot merge"):
        whole.merge(segctl.metrics.FineGrainedIoU(3))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: segctl.metrics.FineGrainedIoU(0), "num_classes is 0"),
        (lambda: segctl.metrics.FineGrainedIoU(3, class_names=["a"]), "wanted int64"),
        (lambda: segctl.metrics.FineGrainedIoU(2, class_names=["a", "a"]), "named twice"),
        (lambda: segctl.metrics.FineGrainedIoU(3, binary=True), "binary scores have 2 classes"),
        (
            lambda: segctl.metrics.FineGrainedIoU(3).update(torch.zeros(1, 4, 2, 2), torch.zeros(1, 2, 2).long()),
            "scores of 4 classes",
        ),
        (
            lambda: segctl.metrics.FineGrainedIoU(3).update(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int), ["a", "b"]),
            "wanted 1",
        ),
        (
            lambda: segctl.metrics.FineGrainedIoU(3).update(np.zeros((1, 2, 2), int), np.zeros((1, 2, 2), int), ["a\nb"]),
            "one line",
        ),
        (lambda: segctl.metrics.FineGrainedIoU(3).update(np.zeros((1, 2, 2), int), np.full((1, 2, 2), 7), ["a"]), "7"),
    ],
)
def test_wrong_arguments_are_refused(wrong, words):
    with pytest.raises(ArgumentError, match=words):
        wrong()


WITHOUT = """
import json, sys
sys.modules["torchmetrics"] = None
import numpy as np
from segctl.metrics.fine_grained import FineGrainedIoU
metric, other = FineGrainedIoU(3), FineGrainedIoU(3)
maps = np.load(sys.argv[1])
batch = metric(maps[0, :2], maps[1, :2], ["a", "b"])
other.update(maps[0, 2:], maps[1, 2:], ["c", "d"])
metric.merge(other)
assert "torch" not in sys.modules
print(json.dumps([batch, metric.compute()]))
metric.reset()
assert metric.table.names == ()
"""


def test_without_torchmetrics_it_counts_the_same_and_loads_no_torch(tmp_path):
    _, preds, labels = draw(4)
    maps = np.stack([[ids[:12, :17] for ids in preds], [ids[:12, :17] for ids in labels]])
    np.save(tmp_path / "maps.npy", maps)
    line = [sys.executable, "-c", WITHOUT, str(tmp_path / "maps.npy")]
    batch, whole = json.loads(subprocess.run(line, capture_output=True, text=True, check=True).stdout)
    metric = segctl.metrics.FineGrainedIoU(3)
    assert metric(maps[0, :2], maps[1, :2], ["a", "b"]) == batch
    metric.update(maps[0, 2:], maps[1, 2:], ["c", "d"])
    assert metric.compute() == whole


TOGETHER = """
import json, sys
import numpy as np, torch
import torch.distributed as dist
from segctl.metrics.fine_grained import FineGrainedIoU
rank, store = int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
maps = torch.from_numpy(np.load(sys.argv[1]))
metric = FineGrainedIoU(3)
mine = [0, 2, 0] if rank else [1, 3]  # a distributed sampler repeats images to fill the last batch
for index in mine:
    metric.update(maps[0, index], maps[1, index], f"im-{index}")
print(json.dumps(metric.compute()))
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_score_their_images_together(tmp_path: Path) -> None:
    _, preds, labels = draw(4)
    maps = np.stack([[ids[:12, :17] for ids in preds], [ids[:12, :17] for ids in labels]])
    np.save(tmp_path / "maps.npy", maps)
    line = [sys.executable, "-c", TOGETHER, str(tmp_path / "maps.npy")]
    ranks = [subprocess.Popen([*line, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE) for rank in (0, 1)]
    found = [json.loads(rank.communicate()[0]) for rank in ranks]
    metric = segctl.metrics.FineGrainedIoU(3)
    metric.update(maps[0], maps[1])
    assert found == [metric.compute()] * 2
