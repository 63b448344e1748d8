"""Find the teacher, load it, and make sure that it teaches something."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from segctl.commands import command_line
from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import InputError
from segctl.evaluate.count_images import Progress, Scoring, count_shared
from segctl.files import file_sha256
from segctl.metrics.scores import score
from segctl.metrics.table import CountTable
from segctl.metrics.tally import Counted
from segctl.models import Segmenter, build_model, read, restore
from segctl.models.external.foreign import Network, class_order, load_program, program_kind
from segctl.models.external.huggingface import PREFIX, load_hugging_face
from segctl.models.external.weights import fill_network, read_network_file
from segctl.runs import RunFolder, newest_finished
from segctl.schema.load import load_preset
from segctl.schema.run import DistillRun, TrainRun

TRIAL_IMAGES = 32
MARGIN = 2.0
"""Points of mIoU_D that a teacher must be above always predicting the commonest class."""


@dataclass(frozen=True)
class Teacher:
    """A loaded teacher and where it came from: its file (or `hf:ORG/NAME`), the preset that made it, its weights' hash.

    `notes` say what was assumed of a network that segctl did not make; `given_preset` is the preset it was described by.
    """

    model: Network
    path: Path
    preset: str
    sha256: str
    notes: tuple[str, ...] = ()
    given_preset: str | None = None

    @property
    def source(self) -> str:
        """What `--teacher` takes to find it again from anywhere."""
        return str(self.path) if _on_the_hub(self.path) else str(self.path.resolve())


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


def find_teacher(run: DistillRun, given: Path | None, runs_root: Path, data_root: Path | None = None) -> Path:
    """The weights file of `--teacher` (a run or a file), else of the newest finished run of the teacher's preset.

    `data_root` is where a teacher would be trained from. Raises InputError.
    """
    if given is None:
        found = newest_finished(runs_root, run.teacher.preset)
        if found is None:
            line = command_line("train", "--preset", run.teacher.preset, data_root=data_root, runs_root=runs_root)
            raise InputError(
                f"no finished run of the teacher preset '{run.teacher.preset}' is under '{runs_root}'",
                f"make one with `{line}`, or give --teacher RUN_OR_FILE",
            )
        return found.model
    if _on_the_hub(given) or _is_hugging_face(given):
        return given
    if given.is_dir():
        folder = RunFolder(given)
        if not folder.finished:
            raise InputError(
                f"--teacher '{given}' is no finished run: it holds no model.pt",
                f"finish it with `{folder.resume_line()}`, or give another" if folder.run_yaml.is_file() else "give another",
            )
        return folder.model
    if not given.is_file():
        raise InputError(f"--teacher '{given}' does not exist", "give a run folder or a model.pt")
    return given


def load_teacher(path: Path, dataset: PreparedDataset, preset: str | None = None) -> Teacher:
    """The network in a file or on the hub, in eval mode, its classes brought into the dataset's order by their names.

    preset: the preset whose network a file of plain weights belongs to.  Raises InputError where the file or its classes
    do not fit.
    """
    names = dataset.classes.names
    if _on_the_hub(path) or _is_hugging_face(path):
        network, digest = load_hugging_face(str(path), names)
        return Teacher(network, path, "hugging face", digest)
    if preset is not None:
        run = load_preset(preset)
        _require_same_data(run, dataset, path)
        return Teacher(_plain_weights(path, run, names), path, run.name, file_sha256(path), given_preset=preset)
    if program_kind(path):
        return Teacher(load_program(path, names), path, program_kind(path), file_sha256(path), notes=(_assumed(path),))
    saved = read(path)
    model = restore(saved)
    if saved.class_names != names:
        pick_classes(model, class_order(saved.class_names, names, f"'{path}'"), names)
    return Teacher(model, path, saved.preset, file_sha256(path))


def _assumed(path: Path) -> str:
    facts = path.with_suffix(".json")
    if facts.is_file():
        return f"the teacher is a program; its classes and normalisation are those of '{facts}'"
    return (
        f"the teacher is a program without '{facts.name}' beside it: its classes must be the dataset's, in its order, "
        "and its pixels are normalised as for ImageNet"
    )


def pick_classes(model: Segmenter, order: list[int], names: list[str]) -> None:
    """Keep the classifiers' channels in `order`, in place: the network then knows the classes `names`."""
    for classifier in [model.classifier, *([] if model.aux is None else [model.aux.classifier])]:
        classifier.weight = nn.Parameter(classifier.weight.detach()[order])
        classifier.out_channels = len(order)
        if classifier.bias is not None:
            classifier.bias = nn.Parameter(classifier.bias.detach()[order])
    model.num_classes, model.class_names = len(names), list(names)


def _plain_weights(path: Path, run: TrainRun, names: list[str]) -> Segmenter:
    with torch.random.fork_rng(devices=[]):
        model = build_model(run.model.model_copy(update={"weights": "none"}), len(names))
    problem = fill_network(model, read_network_file(path))
    if problem:
        raise InputError(
            f"'{path}' does not fit the network of preset '{run.name}' with {len(names)} classes: {problem}",
            "give the preset it was trained by with --teacher-preset",
        )
    model.class_names = list(names)
    return model.eval()


def _require_same_data(run: TrainRun, dataset: PreparedDataset, path: Path) -> None:
    """Plain weights do not say what their classes are called, so the preset must."""
    if run.data.dataset != dataset.name:
        raise InputError(
            f"preset '{run.name}' is for {run.data.dataset}, so nobody says which classes of {dataset.name} '{path}' knows",
            f"give a preset on {dataset.name}",
        )


def _on_the_hub(path: Path) -> bool:
    return str(path).startswith(PREFIX)


def _is_hugging_face(path: Path) -> bool:
    return path.is_dir() and (path / "config.json").is_file() and not (path / "run.yaml").is_file()


def try_teacher(teacher: Teacher, dataset: PreparedDataset, split: str, how: Scoring, progress: Progress | None = None) -> Trial:
    """Score the teacher on the first images of a split."""
    names = dataset.names(split)[:TRIAL_IMAGES]
    counted = count_shared(teacher.model, dataset, names, how, progress)
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
