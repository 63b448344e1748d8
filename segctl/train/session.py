"""From a run's description to its moving parts, everything checked before anything is written."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segctl.commands import RUNS_ROOT
from segctl.data.batches.loader import check_batch
from segctl.data.batches.teacher_outputs import Answers
from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.distillers import build_distiller
from segctl.distillers.align import Pair, Shape
from segctl.errors import InputError, PresetError
from segctl.models import Segmenter, build_model
from segctl.models.backbone import synchronised
from segctl.models.external.foreign import Network
from segctl.models.recompute import recompute_blocks
from segctl.runs import resume_line
from segctl.runtime.device import (
    Compute,
    choose_compute,
    determinism_in_words,
    loader_workers,
    require_compiler,
    set_determinism,
)
from segctl.runtime.world import World
from segctl.schema.cross_checks import group_faults
from segctl.schema.distill_terms import reads
from segctl.schema.run import DistillRun, TrainRun
from segctl.teacher.cache import in_words, plan_answers
from segctl.teacher.load import Teacher, find_teacher, load_teacher
from segctl.train.checkpoint import Best, State
from segctl.train.optimizer import build_opponents, build_optimizer
from segctl.train.tasks import DistillationTask, SupervisedTask

PROCESS_STRIDE = 1_000_003
"""Between the seeds of two processes of one run; large, so that runs of neighbouring seeds share none."""


@dataclass(frozen=True)
class Request:
    """A run and the machine-bound choices around it."""

    run: TrainRun
    data_root: Path
    runs_root: Path
    teacher: Path | None = None
    """A run's folder, a file, or `hf:ORG/NAME`; None takes the newest run of the preset's teacher."""
    teacher_preset: str | None = None
    """The preset that describes the network of a teacher that is a file of plain weights."""
    device: str | None = None
    command: str = ""
    world: World = field(default_factory=World)
    profile: bool = False
    """Look at some steps, and tell where their time goes."""
    tensorboard: bool = False
    """Write scalars for TensorBoard too."""


@dataclass
class Session:
    """The moving parts of one run in one process of its world. `trained` is the task as gradients see it: averaged over the
    processes where there are several."""

    run: TrainRun
    dataset: PreparedDataset
    compute: Compute
    world: World
    workers: int
    model: Segmenter
    task: SupervisedTask
    trained: nn.Module
    teacher: Teacher | None
    state: State
    answers: Answers | None = None
    """What the teacher has answered before, where the run keeps that."""
    runs_root: Path = RUNS_ROOT

    @property
    def evaluated_model(self) -> Segmenter:
        """The network that is validated and shipped: the moving average where the run keeps one."""
        average = self.state.average
        shipped = self.model if average is None else average.module
        assert isinstance(shipped, Segmenter)
        return shipped

    def owner(self) -> dict[str, str | None]:
        """What a checkpoint must agree on with the run that takes it up."""
        teacher = None if self.teacher is None else self.teacher.sha256
        return {"run": self.run.name, "dataset": self.dataset.fingerprint, "teacher": teacher}

    def resume_line(self, folder: Path, *options: str) -> str:
        """The command that goes on with this run from where one stands now."""
        more = [*options]
        more += ["--device", str(self.compute.device)] if self.compute.device_reason == "asked for" else []
        if self.world.size > 1 and self.world.size == self.world.local_size:  # over machines, the launcher says how many
            more += ["--processes", str(self.world.size)]
        return resume_line(folder, self.run, *more, data_root=self.dataset.folder.parent, runs_root=self.runs_root)

    def decisions(self) -> list[str]:
        """What was decided, and why, one line each."""
        run, train = self.run, self.run.train
        parameters = sum(parameter.numel() for parameter in self.model.parameters())
        lines = [
            str(self.compute),
            *determinism_in_words(train.deterministic, self.compute.device),
            f"data {self.dataset.name}   {run.data.train_split} {len(self.dataset.names(run.data.train_split))} images, "
            f"{run.data.val_split} {len(self.dataset.names(run.data.val_split))}   loader workers {self.workers}"
            + (f"   {self.dataset.trial}" if self.dataset.trial else ""),
            f"model {run.model.head} on {run.model.backbone}, weights {run.model.weights}   {parameters:,} parameters",
            f"batch {train.batch_size}"
            + (f" over {self.world.size} processes" if self.world.size > 1 else "")
            + (f" in {train.accumulate} micro-batches" if train.accumulate > 1 else "")
            + f"   steps {train.steps}   seed {train.seed}",
        ]
        lines += self._spared()
        if self.teacher is not None:
            lines += [f"teacher {self.teacher.path}   sha256 {self.teacher.sha256[:12]}", *self.teacher.notes]
        if self.answers is not None:
            lines.append(in_words(self.answers))
        if isinstance(self.task, DistillationTask):
            lines += self.task.distiller.announcements()
        return lines

    def _spared(self) -> list[str]:
        """What saves memory and time, where the run asked for it."""
        lines = []
        if self.run.train.activation_checkpointing:
            lines.append("activation checkpointing: the backbone's blocks are computed a second time instead of kept")
        if compiled := self.task.compiled:
            alone = ", the teacher as it is, because segctl did not build it" if self.teacher and len(compiled) == 1 else ""
            lines.append(f"compiled: {' and '.join(compiled)}{alone}; the first step takes minutes")
        return lines


def prepare_session(request: Request, *, fresh: bool = True) -> Session:
    """Build everything a run needs. Raises InputError for whatever the run asks that is not there; writes nothing.

    With `fresh` false the weights will come from a checkpoint, so initial ones are not looked for.
    """
    world = request.world
    session = world.together(lambda: _build(request, fresh))
    session.trained = world.wrap(session.task, unused=session.model.aux is not None and not _reads_aux(session.run))
    # What a method builds may draw random numbers; dropout then begins from the same state for all of them, and from another
    # one in every process.
    torch.manual_seed(request.run.train.seed + world.rank * PROCESS_STRIDE)
    if isinstance(session.task, DistillationTask):
        session.task.distiller.meet(world)
    return session


def _build(request: Request, fresh: bool) -> Session:
    run, world = request.run, request.world
    dataset = open_dataset(request.data_root, run.data.dataset)
    dataset.names(run.data.val_split)
    check_batch(dataset, run.data.train_split, run.train.batch_size, world.size)
    if world.size > 1 and (faults := group_faults(run, world.size)):
        raise PresetError(f"preset '{run.name}' over {world.size} processes", faults, "use fewer processes, or a larger batch")
    set_determinism(run.train.deterministic)
    compute = choose_compute(request.device, run.train.precision)
    teacher, seen = _teacher(request, run, dataset, compute) if isinstance(run, DistillRun) else (None, None)
    answers = None
    if isinstance(run, DistillRun) and teacher is not None:
        answers = plan_answers(run, dataset, teacher, compute, processes=world.size, runs_root=request.runs_root)
    # The same seed gives every method the same student.
    torch.manual_seed(run.train.seed)
    network = run.model if fresh else run.model.model_copy(update={"weights": "none"})
    model = build_model(network, dataset.classes.num_classes).to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = _task(run, model, teacher, seen).to(compute.device)
    if world.size > 1 and compute.device.type == "cuda":
        synchronised(task)
    _spare(run, task)
    opponents = task.distiller.opponents() if isinstance(task, DistillationTask) else []
    apart = [parameter for opponent in opponents for parameter in opponent.network.parameters()]
    optimizer = build_optimizer(run.optim, task, model.backbone, apart)
    scaler = torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16")
    average = None
    if run.train.ema is not None:
        average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(run.train.ema), use_buffers=True)  # type: ignore[no-untyped-call]
    state = State(compute.device, task, optimizer, build_opponents(opponents), scaler, average, step=0, validated=0, best=Best())
    resolved = run.model_copy(update={"train": run.train.model_copy(update={"precision": compute.precision})})
    workers = loader_workers(run.data.workers, compute.device, world.local_size)
    return Session(resolved, dataset, compute, world, workers, model, task, task, teacher, state, answers, request.runs_root)


def _spare(run: TrainRun, task: SupervisedTask) -> None:
    """Memory and time, where the run asks for it. Raises InputError where it cannot be had."""
    if run.train.activation_checkpointing and not recompute_blocks(task.model.backbone):
        raise InputError(
            f"train.activation_checkpointing: got true, but '{run.model.backbone}' has no blocks to compute again",
            "leave it at false, or take another model.backbone, such as resnet18d",
        )
    if run.train.compile:
        require_compiler()
        task.compile_networks()


def _reads_aux(run: TrainRun) -> bool:
    """Whether any term of the loss sees the auxiliary logits, and so trains their head."""
    terms = run.distiller.terms if isinstance(run, DistillRun) else ()
    return any(term.logits == "aux" for term in run.loss) or any(reads(term) == "aux" for term in terms)


def _teacher(request: Request, run: DistillRun, dataset: PreparedDataset, compute: Compute) -> tuple[Teacher, Shape]:
    """The teacher, on the device, and what it answers for one crop."""
    path = find_teacher(run, request.teacher, request.runs_root, request.data_root)
    teacher = load_teacher(path, dataset, request.teacher_preset)
    teacher.model.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    seen = _shape(teacher.model, run.data.crop)
    _require_aux(run, teacher, seen)
    return teacher, seen


def _require_aux(run: DistillRun, teacher: Teacher, seen: Shape) -> None:
    """Refuse a teacher without the auxiliary logits that a term compares, before the run has begun."""
    for index, term in enumerate(run.distiller.terms):
        if reads(term) == "aux" and seen.aux is None:
            raise InputError(
                f"distiller.terms.{index} ('{term.kind}') compares auxiliary logits, and the teacher '{teacher.path}' has none",
                "give a teacher trained with model.aux true, or leave that term out",
            )


def _task(run: TrainRun, model: Segmenter, teacher: Teacher | None, seen: Shape | None) -> SupervisedTask:
    if isinstance(run, DistillRun) and teacher is not None and seen is not None:
        pair = Pair(_shape(model, run.data.crop), seen)
        return DistillationTask(model, run.labels, run.loss, teacher.model, build_distiller(run.distiller, pair))
    return SupervisedTask(model, run.labels, run.loss)


@torch.no_grad()
def _shape(model: Network, crop: tuple[int, int]) -> Shape:
    """What the network answers for a crop, found by asking it."""
    was_training = model.training
    model.eval()
    image = torch.zeros((1, *crop, 3), dtype=torch.uint8, device=model.pixel_mean.device)
    shape = Shape.of(model(model.normalize(image)))
    model.train(was_training)
    return shape
