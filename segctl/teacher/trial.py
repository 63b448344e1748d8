"""Score a teacher on a few images before step 1, so that wrong weights are noticed: the classic silent failure."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import InputError
from segctl.evaluate.count_images import Scoring, count_shared
from segctl.files import Progress
from segctl.metrics.scores import score
from segctl.metrics.table import CountTable
from segctl.metrics.tally import EvaluationCounts
from segctl.teacher.load import Teacher

TRIAL_IMAGES = 32
MARGIN = 2.0
"""A teacher must beat the constant prediction by this many points of mIoU_D."""


@dataclass(frozen=True)
class Trial:
    """A teacher's scores on the first validation images in percent, and the mIoU_D of always predicting one class."""

    images: int
    scores: dict[str, float | None]
    constant: float
    constant_class: str
    members: tuple["Trial", ...] = ()
    """Those of an ensemble's members, each alone."""

    @property
    def passed(self) -> bool:
        return (self.scores["mIoU_D"] or 0.0) >= self.constant + MARGIN

    def __str__(self) -> str:
        return (
            f"teacher scores {self.scores['mIoU_D'] or 0.0:.2f} mIoU_D on {self.images} validation images "
            f"(always '{self.constant_class}': {self.constant:.2f})"
        )


def try_teacher(teacher: Teacher, dataset: PreparedDataset, split: str, how: Scoring, progress: Progress | None = None) -> Trial:
    """Score the teacher, and each member of an ensemble, on the first 32 images of a split. Every process of a run calls it.

    Raises InputError for a teacher whose answers are not finite.
    """
    members = tuple(try_teacher(member, dataset, split, how, progress) for member in teacher.members)
    names = dataset.names(split)[:TRIAL_IMAGES]
    finite: list[Tensor] = []
    hook = teacher.model.register_forward_hook(lambda _, images, prediction: finite.append(prediction.logits.isfinite().all()))
    try:
        counted = count_shared(teacher.model, dataset, names, how, progress)
    finally:
        hook.remove()
    how.world.together(lambda: _require_numbers(teacher, finite))
    scores = score(counted.table, binary=dataset.classes.binary)
    constant, best_class = constant_score(counted, dataset.classes.binary)
    return Trial(len(names), scores, constant, best_class, members)


def _require_numbers(teacher: Teacher, finite: list[Tensor]) -> None:
    """Raise InputError if an answer of the teacher was not finite: the student's loss would be NaN, and the cause hidden."""
    if finite and not bool(torch.stack(finite).all()):
        raise InputError(
            f"the teacher {teacher.place} returns NaN or infinite numbers for validation images",
            "it cannot teach: its file is damaged, or its numbers overflow; give another --teacher",
        )


def require_passed(trial: Trial, path: Path) -> None:
    """Raise InputError for a teacher that is hardly better than a constant prediction."""
    if not trial.passed:
        raise InputError(
            f"the teacher '{path}' has learnt too little: {trial}, wanted at least {trial.constant + MARGIN:.2f}",
            "check that it is the right file; --dry-run shows its score and does not refuse it",
        )


def constant_score(counted: EvaluationCounts, binary: bool) -> tuple[float, str]:
    """The mIoU_D in percent of predicting the commonest class everywhere on the same images, and that class."""
    truth = counted.confusion.sum(1)
    commonest = int(truth.argmax())
    counts = counted.table.counts.sum(0, keepdims=True).copy()
    pixels = counts[0, :, 0] + counts[0, :, 2]
    # Every class misses all its pixels, except for the predicted one: it gets its own right and all others as false positives.
    counts[0, :, 0], counts[0, :, 1], counts[0, :, 2] = 0, 0, pixels
    counts[0, commonest] = (pixels[commonest], pixels.sum() - pixels[commonest], 0)
    table = CountTable(("all",), counted.table.class_names, counts)
    return score(table, binary=binary)["mIoU_D"] or 0.0, counted.table.class_names[commonest]
