"""Find the teacher, load it, and make sure that it teaches something."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from segctl.data.packed import PackedDataset
from segctl.engine.device import Compute
from segctl.engine.evaluate import Progress, Scoring, count_images
from segctl.errors import InputError
from segctl.metrics.counted import Counted
from segctl.metrics.scores import score
from segctl.metrics.table import CountTable
from segctl.models import Segmenter, read, restore
from segctl.runs import RunFolder, newest_finished
from segctl.schema.run import DistillRun

TRIAL_IMAGES = 32
MARGIN = 2.0
"""Points of mIoU_D that a teacher must be above always predicting the commonest class."""


@dataclass(frozen=True)
class Teacher:
    """A loaded teacher and where it came from: its file, the preset that made it, and the file's hash."""

    model: Segmenter
    path: Path
    preset: str
    sha256: str


@dataclass(frozen=True)
class Trial:
    """A teacher's scores on the first validation images, in percent, beside the best constant prediction's mIoU_D."""

    images: int
    scores: dict[str, float | None]
    constant: float
    constant_class: str

    @property
    def passed(self) -> bool:
        return (self.scores["mIoU_D"] or 0.0) >= self.constant + MARGIN

    def __str__(self) -> str:
        return (
            f"teacher scores {self.scores['mIoU_D'] or 0.0:.2f} mIoU_D on {self.images} validation images "
            f"(always '{self.constant_class}': {self.constant:.2f})"
        )


def find_teacher(run: DistillRun, given: Path | None, runs_root: Path) -> Path:
    """The weights file of `--teacher` (a run or a file), else of the newest finished run of the teacher's preset.

    Raises InputError.
    """
    if given is None:
        found = newest_finished(runs_root, run.teacher.preset)
        if found is None:
            raise InputError(
                f"no finished run of the teacher preset '{run.teacher.preset}' is under '{runs_root}'",
                f"make one with `segctl train --preset {run.teacher.preset}`, or give --teacher RUN_OR_FILE",
            )
        return found.model
    if given.is_dir():
        folder = RunFolder(given)
        if not folder.finished:
            raise InputError(
                f"--teacher '{given}' is no finished run: it holds no model.pt", "finish it with --resume, or give another"
            )
        return folder.model
    if not given.is_file():
        raise InputError(f"--teacher '{given}' does not exist", "give a run folder or a model.pt")
    return given


def load_teacher(path: Path, class_names: list[str]) -> Teacher:
    """The network in a weights file, in eval mode. Raises InputError where its classes are not the dataset's."""
    saved = read(path)
    model = restore(saved, class_names=class_names)
    with path.open("rb") as handle:
        digest = hashlib.file_digest(handle, "sha256").hexdigest()
    return Teacher(model, path, saved.preset, digest)


def try_teacher(
    teacher: Teacher, dataset: PackedDataset, run: DistillRun, compute: Compute, progress: Progress | None = None
) -> Trial:
    """Score the teacher on the first validation images under the run's protocol."""
    names = dataset.names(run.data.val_split)[:TRIAL_IMAGES]
    counted = count_images(teacher.model, dataset, names, Scoring(run.evaluate, compute), progress)
    scores = score(counted.table, binary=dataset.classes.binary)
    constant, best_class = constant_score(counted, dataset.classes.binary)
    return Trial(len(names), scores, constant, best_class)


def require_passed(trial: Trial, path: Path) -> None:
    """Refuse a teacher that knows no more than a constant. Raises InputError."""
    if not trial.passed:
        raise InputError(
            f"the teacher '{path}' has learnt too little: {trial}, wanted at least {trial.constant + MARGIN:.2f}",
            "check that its weights are those of a trained run; --dry-run shows its score without refusing it",
        )


def constant_score(counted: Counted, binary: bool) -> tuple[float, str]:
    """mIoU_D of predicting the commonest class everywhere on the same images, and that class."""
    truth = counted.confusion.sum(1)
    commonest = int(truth.argmax())
    counts = counted.table.counts.sum(0, keepdims=True).copy()
    pixels = counts[0, :, 0] + counts[0, :, 2]
    counts[0, :, 0], counts[0, :, 1], counts[0, :, 2] = 0, 0, pixels
    counts[0, commonest] = (pixels[commonest], pixels.sum() - pixels[commonest], 0)
    table = CountTable(("all",), counted.table.class_names, counts)
    return score(table, binary=binary)["mIoU_D"] or 0.0, counted.table.class_names[commonest]
