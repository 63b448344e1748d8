"""Load a teacher's network from any file that holds one, with its classes in the dataset's order."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from segctl.data.fitted_preset import load_preset_for
from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import InputError
from segctl.files import archive_kind, file_sha256, real_path
from segctl.models import Segmenter, build_model, restore
from segctl.models.external.foreign import ForeignNetwork, Network, class_order, load_program
from segctl.models.external.hub import is_pushed_run, repository_folder
from segctl.models.external.huggingface import load_hugging_face
from segctl.models.external.weights import fill_network
from segctl.models.saving import read_if_saved
from segctl.runs import MODEL_FILE, RunFolder, on_the_hub
from segctl.schema.run import TrainRun
from segctl.teacher.find import is_hugging_face


@dataclass(frozen=True)
class Teacher:
    """A loaded teacher and where it came from.

    path: its file, or `hf:ORG/NAME`.  preset: the preset that made it, or its kind of file.  sha256: the hash of its file.
    notes: which runs it was chosen from, and what was assumed about a network that segctl did not make.
    given_preset: the --teacher-preset that describes it.
    members, weights: of an ensemble; its path is its first member's, and its sha256 is a hash of theirs and of the weights.
    """

    model: Network
    path: Path
    preset: str
    sha256: str
    notes: tuple[str, ...] = ()
    given_preset: str | None = None
    members: tuple["Teacher", ...] = ()
    weights: tuple[float, ...] = ()

    @property
    def license(self) -> str:
        """The licences of the weights that the teacher's run began with and learnt from; empty where none is recorded."""
        if self.members:
            return "; ".join(dict.fromkeys(member.license for member in self.members if member.license))
        return "" if on_the_hub(self.path) else RunFolder(self.path if self.path.is_dir() else self.path.parent).license

    def chosen(self, note: str) -> "Teacher":
        """The same teacher; the note says which runs it was chosen from, or is empty."""
        return replace(self, notes=(note, *self.notes)) if note else self

    @property
    def is_program(self) -> bool:
        """Whether reading its file may run code, so that every command that reads it needs --trust-program."""
        return self.preset in ("torchscript", "export") or any(member.is_program for member in self.members)

    @property
    def networks(self) -> tuple["Teacher", ...]:
        """The members of an ensemble, or the teacher itself."""
        return self.members or (self,)

    @property
    def place(self) -> str:
        """Where it is, for messages: its path, or its members' paths, in quotes."""
        return " + ".join(f"'{each.path}'" for each in self.networks)

    @property
    def source(self) -> str:
        """The value of `--teacher` that finds it again from any folder; of an ensemble, those of its members."""
        if self.members:
            return " + ".join(member.source for member in self.members)
        return str(self.path) if on_the_hub(self.path) else str(real_path(self.path))


def load_teacher(
    path: Path,
    dataset: PreparedDataset,
    preset: str | None = None,
    *,
    trust_program: bool = False,
    crop: tuple[int, int] | None = None,
) -> Teacher:
    """The network in a file or on the hub, in eval mode, on the CPU, its classes sorted into the dataset's order by name.

    preset: the preset that describes the network of a file of plain weights.  trust_program: whether a TorchScript or
    torch.export file may be read, which may run its code.  crop: height and width of the images that it will teach on, for a
    network that takes no others.  Raises InputError if the file or its classes do not fit.
    """
    names = dataset.classes.names
    folder = repository_folder(str(path)) if on_the_hub(path) else path
    if on_the_hub(path) and is_pushed_run(folder):
        return _of_segctl(folder / MODEL_FILE, path, names)
    if on_the_hub(path) or is_hugging_face(path):
        found = load_hugging_face(folder, str(path), names)
        notes = (*found.notes, *_recognised(found.network, dataset, crop))
        return Teacher(found.network, path, "hugging face", found.sha256, notes)
    if preset is not None:
        run = load_preset_for(dataset.name, preset, dataset.folder.parent)
        _require_same_data(run, dataset, path)
        model, note = _plain_weights(path, run, names)
        return Teacher(model, path, run.name, file_sha256(path), (note,) if note else (), given_preset=preset)
    if archive_kind(path):
        network = load_program(path, names, trusted=trust_program)
        notes = (_assumed(path), *_recognised(network, dataset, crop))
        return Teacher(network, path, archive_kind(path), file_sha256(path), notes)
    return _of_segctl(path, path, names)


def _of_segctl(file: Path, path: Path, names: list[str]) -> Teacher:
    """The teacher in a model file of segctl. path: where it was found."""
    saved = read_if_saved(file)
    if saved is None:
        raise InputError(
            f"'{path}' is a PyTorch file, but not a model that segctl wrote: it does not say which network its weights are of",
            f"add --teacher-preset NAME_OR_FILE, the preset of that network; a run's folder or {MODEL_FILE} needs none",
        )
    model = restore(saved)
    if saved.class_names != names:
        pick_classes(model, class_order(saved.class_names, names, f"'{path}'"), names)
    return Teacher(model, path, saved.preset, file_sha256(file))


def _recognised(network: ForeignNetwork, dataset: PreparedDataset, crop: tuple[int, int] | None) -> tuple[str, ...]:
    """Find out from one picture of the dataset whether the network returns probabilities; a sentence about it if it does."""
    image = dataset.image(next(name for names in dataset.splits.values() for name in names))
    if crop is not None:
        height, width = (min(side, wanted) for side, wanted in zip(image.shape[:2], crop, strict=True))
        image = np.pad(image[:height, :width], ((0, crop[0] - height), (0, crop[1] - width), (0, 0)), mode="edge")
    try:
        with torch.inference_mode():
            note = network.recognise(torch.from_numpy(image).unsqueeze(0))
    except InputError:  # it takes only other sizes; the first view of the run raises the same error
        return ()
    return (note,) if note else ()


def _assumed(path: Path) -> str:
    facts = path.with_suffix(".json")
    if facts.is_file():
        return f"the teacher is a program; '{facts}' gives its classes and normalisation"
    return (
        f"the teacher is a program without a '{facts.name}' beside it: its classes must be the dataset's in the same order, "
        "and its images are normalised with ImageNet's mean and deviation"
    )


def pick_classes(model: Segmenter, order: list[int], names: list[str]) -> None:
    """Keep only the classifiers' output channels in `order`, in place, so that the network predicts the classes `names`."""
    for classifier in [model.classifier, *([] if model.aux is None else [model.aux.classifier])]:
        classifier.weight = nn.Parameter(classifier.weight.detach()[order])
        classifier.out_channels = len(order)
        if classifier.bias is not None:
            classifier.bias = nn.Parameter(classifier.bias.detach()[order])
    model.num_classes, model.class_names = len(names), list(names)


def _plain_weights(path: Path, run: TrainRun, names: list[str]) -> tuple[Segmenter, str]:
    """The network of a file of plain weights, and a note on how the file was read. Raises InputError if they do not fit."""
    with torch.random.fork_rng(devices=[]):  # so that loading a teacher does not change the student's first weights
        model = build_model(run.model.model_copy(update={"weights": "none"}), len(names))
    problem, note = fill_network(model, path, model.rename)
    if problem:
        raise InputError(
            f"'{path}' does not fit the network of preset '{run.name}' with {len(names)} classes: {problem}",
            "give by --teacher-preset the preset that it was trained with",
        )
    model.class_names = list(names)
    return model.eval(), note


def _require_same_data(run: TrainRun, dataset: PreparedDataset, path: Path) -> None:
    """Refuse a preset of another dataset: plain weights do not name their classes, so the preset's dataset must."""
    if run.data.dataset != dataset.name:
        raise InputError(
            f"'{path}' holds weights without class names, and preset '{run.name}' is for {run.data.dataset}, not {dataset.name}",
            f"give a preset for {dataset.name} by --teacher-preset",
        )
