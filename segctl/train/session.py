"""The request for a run, and the run's moving parts in one process. build.py turns the first into the second."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from segctl.commands import RUNS_ROOT
from segctl.data.batches.teacher_outputs import TeacherOutputs
from segctl.data.batches.views import TrainingNames, names_without_label
from segctl.data.files.lock import locked
from segctl.data.shards.dataset import PreparedDataset
from segctl.models import Segmenter
from segctl.runs import RunFolder, resume_line
from segctl.runtime.determinism import determinism_in_words
from segctl.runtime.device import Compute
from segctl.runtime.world import World
from segctl.schema.cross_checks import local_losses, reach_beyond_crop
from segctl.schema.run import DistillRun, PretrainRun, TrainRun
from segctl.teacher.cache import TeacherCache
from segctl.teacher.features import FeatureTeacher
from segctl.teacher.load import Teacher
from segctl.train.auto.by_dataset import has_auto_weights, weights_in_words
from segctl.train.checkpoint import State
from segctl.train.pretrain.match import adapter_in_words
from segctl.train.tasks import DistillationTask, SupervisedTask

PERMISSIVE = ("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause")
"""Licences that allow a network made from the weights to be passed on, together with their notice."""


@dataclass(frozen=True)
class Request:
    """A run, and what only this start of it decides: where data and runs are, on which device and processes it trains.

    teacher: a run's folder, a file or `hf:ORG/NAME`; `best` the best run of the preset's
        teacher by validation; None takes the newest.
    further_teachers: those whose probabilities are averaged with the first one's.
    teacher_preset: the preset that describes the network of a teacher that is a file of plain weights.
    trust_program: whether a teacher that is a TorchScript or torch.export file may be read, which may run its code.
    command: the command line, for environment.json.
    profile: measure where a step's time goes.  track: names of trackers to give the run's curves to.
    reasons: why segctl chose what the preset leaves open, in sentences.
    fsdp: spread the teacher's weights over the processes.
    """

    run: TrainRun
    data_root: Path
    runs_root: Path
    teacher: Path | None = None
    teacher_preset: str | None = None
    trust_program: bool = False
    device: str | None = None
    command: str = ""
    world: World = field(default_factory=World)
    profile: bool = False
    track: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    further_teachers: tuple[Path, ...] = ()
    fsdp: bool = False

    @property
    def teachers(self) -> tuple[Path, ...]:
        """All teachers that are given."""
        return self.further_teachers if self.teacher is None else (self.teacher, *self.further_teachers)


@contextmanager
def one_writer(folder: RunFolder, world: World) -> Iterator[None]:
    """Hold the lock of a run's folder, which exists. Raises SegctlError that names the process which writes the run already."""
    with ExitStack() as held:
        lock = locked(folder.lock, f"the run '{folder.path}'")
        world.together(lambda: world.on_main(lambda: held.enter_context(lock)))
        yield


@dataclass
class Session:
    """The moving parts of one run in one process of its world.

    run: the run, its precision resolved.  trained: the task, wrapped so that its gradients are averaged over the processes.
    teacher_cache: for a run with teacher.cache.
    """

    run: TrainRun
    dataset: PreparedDataset
    compute: Compute
    world: World
    workers: int
    model: Segmenter
    task: SupervisedTask
    trained: nn.Module
    teacher: Teacher | FeatureTeacher | None
    state: State
    teacher_cache: TeacherCache | None = None
    runs_root: Path = RUNS_ROOT
    reasons: tuple[str, ...] = ()
    sharded: bool = False
    """Whether the teacher's weights are spread over the processes, which then have to run it equally often."""

    @property
    def teacher_outputs(self) -> TeacherOutputs | None:
        """The cached outputs that batches come with, for a run with teacher.cache."""
        return None if self.teacher_cache is None else self.teacher_cache.outputs

    @property
    def evaluated_model(self) -> Segmenter:
        """The network that is validated and shipped: the moving average of the weights if the run has one."""
        average = self.state.average
        shipped = self.model if average is None else average.module
        assert isinstance(shipped, Segmenter)
        return shipped

    @property
    def stopped_early(self) -> bool:
        """Whether train.early_stop ends the run after the steps taken so far."""
        early_stop = self.run.train.early_stop
        return early_stop is not None and self.state.waiting.validations >= early_stop.patience

    @property
    def ended(self) -> bool:
        """Whether the run has taken its last step."""
        return self.stopped_early or self.state.step == self.run.train.steps

    def owner(self) -> dict[str, Any]:
        """What identifies the run that a checkpoint belongs to, as `checkpoint.Owner`; another owner cannot resume from it."""
        teacher = None if self.teacher is None else self.teacher.sha256
        settings = self.run.model_dump(mode="json")
        return {"run": self.run.name, "dataset": self.dataset.fingerprint, "teacher": teacher, "settings": settings}

    def resume_line(self, folder: Path, *options: str) -> str:
        """The command that resumes this run from the current folder; `options` are added to it."""
        more = [*options]
        if self.compute.device_given:
            device = self.compute.device
            # This process's own number would put all processes on one GPU.
            more += ["--device", device.type if self.world.size > 1 else str(device)]
        if self.world.size > 1 and self.world.size == self.world.local_size:  # across machines the launcher sets the number
            more += ["--processes", str(self.world.size)]
        if self.teacher is not None and self.teacher.is_program:
            more += ["--trust-program"]
        more += ["--fsdp"] if self.sharded else []
        return resume_line(folder, self.run, *more, data_root=self.dataset.folder.parent, runs_root=self.runs_root)

    def _labels_in_words(self) -> str:
        """How many of the training pictures have labels, and what is mixed in; empty if all have and nothing is."""
        names, spec = self.dataset.names(self.run.data.train_split), self.run.data.unlabelled
        hidden = names_without_label(self.dataset, self.run.data.train_split, self.run.data.labelled)
        words = f" ({len(names) - len(hidden)} with labels)" if hidden else ""
        if spec is not None:
            pool = len(TrainingNames.of(self.dataset, self.run.data).unlabelled)
            words += f", {pool} without labels, {spec.per_batch} of them in each batch beside the {self.run.train.batch_size}"
        return words

    def _epochs(self) -> float:
        """How often the run sees every training image."""
        train = self.run.train
        return train.steps * train.batch_size / len(TrainingNames.of(self.dataset, self.run.data).labelled)

    def _learning(self) -> int:
        """How many parameters of the network are trained."""
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)

    def _licenses(self) -> list[str]:
        """The licences of the first weights and of the teacher's, a line each."""
        given = {"the backbone's weights": self.model.backbone.license}
        given["the teacher's weights"] = "" if self.teacher is None else self.teacher.license
        return [
            f"licence of {what}: {text}" + ("" if text in PERMISSIVE else "; read its terms before you pass the network on")
            for what, text in given.items()
            if text
        ]

    def _teacher_in_words(self) -> list[str]:
        """Which teacher there is, and how it runs."""
        if self.teacher is None:
            return []
        lines = [f"teacher {each.path}   sha256 {each.sha256[:12]}" for each in self.teacher.networks]
        lines += self.teacher.notes
        lines += [f"the teacher's weights are spread over {self.world.size} processes"] if self.sharded else []
        if isinstance(self.run, DistillRun) and isinstance(self.task, DistillationTask) and self.run.teacher.overlap:
            off = "the teacher does not run beside the student: teacher.overlap wants a GPU, and no --deterministic"
            lines.append("the teacher runs beside the student's forward pass" if self.task.overlap else off)
        return lines

    def decisions(self) -> list[str]:
        """What was decided for this run and why, one line each, to print before step 1."""
        run, train = self.run, self.run.train
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        what = run.model.backbone if isinstance(run, PretrainRun) else f"{run.model.head} on {run.model.backbone}"
        lines = [
            str(self.compute),
            *determinism_in_words(train.deterministic, self.compute.device),
            f"data {self.dataset.name}   {run.data.train_split} {len(self.dataset.names(run.data.train_split))} images"
            f"{self._labels_in_words()}, "
            f"{run.data.val_split} {len(self.dataset.names(run.data.val_split))}   loader workers {self.workers}"
            + (f"   {self.dataset.trial}" if self.dataset.trial else ""),
            *([f"augmentation {', '.join(step.kind for step in run.data.augment)}"] if run.data.augment else []),
            f"model {what}, weights {run.model.weights}   {parameters:,} parameters"
            + (f", of which {self._learning():,} learn: the backbone is frozen" if run.model.frozen else ""),
            f"batch {train.batch_size}"
            + (f" over {self.world.size} processes" if self.world.size > 1 else "")
            + (f" in {train.accumulate} micro-batches" if train.accumulate > 1 else "")
            + f"   steps {train.steps}   epochs {self._epochs():.3g}   seed {train.seed}",
        ]
        if train.early_stop is not None:
            patience = train.early_stop.patience
            lines.append(
                f"early stopping: after {patience} validation{'s' if patience > 1 else ''} in a row, "
                f"{patience * train.validate_every} steps, without a better {train.watched}"
            )
        lines += self.reasons
        lines += [weights_in_words(run, self.dataset)] if has_auto_weights(run) else []
        lines += [self.model.weights_note] if self.model.weights_note else []
        lines += self._licenses()
        if self.world.size > 1:
            lines += local_losses(run)
        if train.activation_checkpointing:
            lines.append("activation checkpointing: the backbone's blocks are computed again in the backward pass, not stored")
        if compiled := self.task.compiled:
            teacher = ", but not the teacher, which is not one network of segctl" if self.teacher and len(compiled) == 1 else ""
            graphs = " and recorded as CUDA graphs" if train.compile == "reduce-overhead" else ""
            lines.append(f"compiled{graphs}: {' and '.join(compiled)}{teacher}; the first step takes minutes")
        if run.semi is not None:
            lines.append(run.semi.in_words())
        lines += self._teacher_in_words()
        if self.teacher_cache is not None:
            lines.append(str(self.teacher_cache))
        if isinstance(run, PretrainRun) and isinstance(self.teacher, FeatureTeacher):
            lines.append(adapter_in_words(run.pretrain, self.model.backbone.channels[-1], self.teacher.model.channels))
        if isinstance(self.task, DistillationTask):
            lines += self.task.distiller.announcements()
        if run.labels.kind == "hard" and (raters := self.dataset.most_raters):
            lines.append(f"labels: the majority of up to {raters} raters; `--set labels={{kind: raters}}` trains on their mean")
        return [*lines, *(f"warning: {text}" for text in self._doubts())]

    def _doubts(self) -> list[str]:
        """What is likely to spoil the run, in sentences."""
        run, texts = self.run, []
        if run.model.frozen and run.model.weights == "none":
            texts.append("model.frozen keeps the backbone's random weights, so a head on them learns little")
        if text := reach_beyond_crop(run, run.evaluate, self.dataset.usual_size(run.data.val_split)):
            texts.append(
                f"{text}; its outer weights see only padding there and stay zero, so larger pictures gain nothing by it. "
                "Larger crops or a smaller model.rates would use it"
            )
        judged = self.dataset.judged_labels((run.data.train_split, run.data.val_split))
        return [*texts, *(finding.problem for finding in judged.certain), *judged.warnings]
