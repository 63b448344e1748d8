"""The constant that a teacher must beat, by hand, and the margin."""

from pathlib import Path

import numpy as np
import pytest

from segctl.errors import InputError
from segctl.metrics.table import CountTable
from segctl.metrics.tally import EvaluationCounts
from segctl.teacher.trial import MARGIN, Trial, constant_score, require_passed


def counted(confusion: list[list[int]]) -> EvaluationCounts:
    matrix = np.array(confusion, np.int64)
    hits = matrix.diagonal()
    counts = np.stack([hits, matrix.sum(0) - hits, matrix.sum(1) - hits], axis=-1)[None]
    names = tuple("abc"[: len(matrix)])
    return EvaluationCounts(CountTable(("image",), names, counts), matrix)


def test_always_the_commonest_class_scores_its_share_over_the_classes_seen() -> None:
    # 6 pixels of a, 3 of b, 1 of c: always a has IoU 6/10 for a and 0 for b and c
    value, name = constant_score(counted([[1, 5, 0], [0, 3, 0], [0, 0, 1]]), binary=False)
    assert (value, name) == (pytest.approx(100 * 0.6 / 3), "a")


def test_a_binary_dataset_scores_the_foreground_of_the_constant() -> None:
    assert constant_score(counted([[7, 0], [1, 2]]), binary=True) == (pytest.approx(0.0), "a")
    assert constant_score(counted([[1, 1], [2, 6]]), binary=True) == (pytest.approx(80.0), "b")


@pytest.mark.parametrize(("score", "passes"), [(20.0 + MARGIN, True), (20.0 + MARGIN - 0.01, False), (None, False)])
def test_a_teacher_must_be_the_margin_above_the_constant(score: float | None, passes: bool) -> None:
    trial = Trial(32, {"mIoU_D": score}, 20.0, "a")
    assert trial.passed is passes
    if not passes:
        with pytest.raises(InputError, match="has learnt too little"):
            require_passed(trial, Path("model.safetensors"))
