"""The same numbers as torchmetrics and scikit-learn, where the definitions agree. Skipped where they are not installed."""

import numpy as np
import pytest
import torch

from segctl.metrics.counts import confusion, count
from segctl.metrics.scores import per_class, score
from segctl.metrics.table import CountTable

IGNORED = 255
CLASSES = 6


def maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    label = random.integers(0, CLASSES, (3, 40, 50)).astype(np.uint8)
    prediction = np.where(random.random(label.shape) < 0.6, label, random.integers(0, CLASSES, label.shape)).astype(np.uint8)
    label[random.random(label.shape) < 0.2] = IGNORED
    return prediction, label


def table(prediction: np.ndarray, label: np.ndarray) -> CountTable:
    names = tuple(f"im{index}" for index in range(len(label)))
    return CountTable(names, tuple("abcdef"), count(prediction, label, CLASSES))


@pytest.mark.parametrize("seed", range(4))
def test_torchmetrics_agrees(seed: int) -> None:
    theirs = pytest.importorskip("torchmetrics.functional.classification", reason="torchmetrics is not installed")
    prediction, label = maps(seed)
    guess, truth = torch.from_numpy(prediction).long(), torch.from_numpy(label).long()
    matrix = theirs.multiclass_confusion_matrix(guess, truth, CLASSES, ignore_index=IGNORED)
    np.testing.assert_array_equal(confusion(prediction, label, CLASSES), matrix.numpy())
    scores, rows = score(table(prediction, label)), per_class(table(prediction, label))
    jaccard = theirs.multiclass_jaccard_index(guess, truth, CLASSES, ignore_index=IGNORED)
    assert scores["mIoU_D"] == pytest.approx(100 * float(jaccard), rel=1e-5)
    recall = theirs.multiclass_recall(guess, truth, CLASSES, average="none", ignore_index=IGNORED)
    assert [row["Acc_D"] for row in rows] == pytest.approx((100 * recall).tolist(), rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_scikit_learn_agrees(seed: int) -> None:
    theirs = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    prediction, label = maps(seed)
    valid = label != IGNORED
    guess, truth, ids = prediction[valid], label[valid], list(range(CLASSES))
    np.testing.assert_array_equal(confusion(prediction, label, CLASSES), theirs.confusion_matrix(truth, guess, labels=ids))
    rows = per_class(table(prediction, label))
    precision, recall, dice, _ = theirs.precision_recall_fscore_support(truth, guess, labels=ids)
    for column, expected in (("Precision_D", precision), ("Acc_D", recall), ("Dice_D", dice)):
        assert [row[column] for row in rows] == pytest.approx((100 * expected).tolist(), rel=1e-12)
    jaccard = 100 * theirs.jaccard_score(truth, guess, labels=ids, average=None)
    assert [row["IoU_D"] for row in rows] == pytest.approx(jaccard.tolist(), rel=1e-12)
    by_image = [
        theirs.jaccard_score(t[t != IGNORED], p[t != IGNORED], labels=ids, average="macro")
        for p, t in zip(prediction, label, strict=True)
    ]
    assert score(table(prediction, label))["mIoU_I"] == pytest.approx(100 * float(np.mean(by_image)), rel=1e-12)
