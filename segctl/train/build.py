"""From a request to a session: everything a run needs is built and checked before anything is written."""

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TypeVar, overload

import torch
from torch import nn

from segctl.data.batches.loader import check_batch
from segctl.data.batches.micro_batches import micro_batches
from segctl.data.batches.views import TrainingNames, Views, require_known
from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.distillers import build_distiller
from segctl.distillers.align import Pair, Shape
from segctl.distillers.build import term_class
from segctl.errors import InputError, PresetError
from segctl.models import Segmenter, build_model
from segctl.models.depthwise import quicken_depthwise
from segctl.models.external.foreign import Network
from segctl.models.forward import forward_images
from segctl.models.moving_average import MovingAverage
from segctl.models.recompute import recompute_blocks
from segctl.models.timm_backbone import synchronised
from segctl.runtime.compiler import require_compiler
from segctl.runtime.cores import loader_workers
from segctl.runtime.determinism import set_determinism
from segctl.runtime.device import Compute, choose_compute, require_own_gpus
from segctl.runtime.sharding import parts_that_run, shard_frozen
from segctl.runtime.world import World
from segctl.schema.cross_checks import group_faults
from segctl.schema.run import DistillRun, PretrainRun, TrainRun, with_epochs_counted
from segctl.schema.terms.loss_terms import LossTermSpec
from segctl.schema.terms.methods import Method
from segctl.teacher.cache import plan_teacher_cache
from segctl.teacher.ensemble import choose_features, open_teacher, with_folded_networks
from segctl.teacher.features import FeatureTeacher, load_feature_teacher
from segctl.teacher.load import Teacher
from segctl.train.auto.by_dataset import require_scores, weighted_loss
from segctl.train.checkpoint import Best, State, Waiting
from segctl.train.optimizer import build_opponents, build_optimizer
from segctl.train.pretrain.probe import probe_names
from segctl.train.pretrain.task import PretrainTask
from segctl.train.semi.task import SemiTask
from segctl.train.session import Request, Session
from segctl.train.tasks import DistillationTask, SupervisedTask

T = TypeVar("T", Teacher, FeatureTeacher)

PROCESS_STRIDE = 1_000_003
"""Distance between the seeds of two processes of one run. It is large so that runs of neighbouring seeds share no seed."""


def build_session(request: Request, *, fresh: bool = True) -> Session:
    """Build everything a run needs; write nothing.

    fresh: whether the network starts from its initial weights; if False a checkpoint replaces them, so they are not
    loaded.  Raises InputError for anything that the run needs and that does not exist or does not fit.
    """
    world = request.world
    session = world.together(lambda: _build(request, fresh))
    require_own_gpus(session.compute.device, world)
    unread = session.model.aux is not None and not _reads_aux(session.run)
    idle = unread or (world.size > 1 and _has_idle_weights(session.model))
    # A GPU's kernels differ in the last digits from run to run anyway, unless --deterministic forbids it.
    exact = session.compute.device.type != "cuda" or request.run.train.deterministic
    session.trained = world.wrap(session.task, unused=idle, exact=exact)
    # Building a method may draw random numbers. Seed again, so that dropout starts from the same state for every method, and
    # from another state in every process.
    torch.manual_seed(request.run.train.seed + world.rank * PROCESS_STRIDE)
    if isinstance(session.task, DistillationTask):
        session.task.distiller.meet(world)
    return session


def _build(request: Request, fresh: bool) -> Session:
    world = request.world
    dataset = open_dataset(request.data_root, request.run.data.dataset)
    names = TrainingNames.of(dataset, request.run.data)
    run = with_epochs_counted(request.run, len(names.labelled))
    require_labels(run, dataset)
    require_scores(run, dataset)
    check_batch(dataset, names.labelled, run.data.train_split, run.train.batch_size, world.size)
    Views.of(dataset, run.data.train_split, run.data)  # refuses before step 1 what it cannot augment
    if run.semi is not None:
        require_known(dataset, run.semi.augment, "semi.augment")
    if world.size > 1 and (faults := group_faults(run, world.size)):
        raise PresetError(f"preset '{run.name}' over {world.size} processes", faults, "use fewer processes, or a larger batch")
    set_determinism(run.train.deterministic)
    compute = choose_compute(request.device, run.train.precision)
    teacher: Teacher | FeatureTeacher | None = None
    teacher_shape, outputs = None, None
    if isinstance(run, PretrainRun):
        teacher = _folded_if_whole(load_feature_teacher(run.pretrain, dataset), request, compute)
        _move_teacher(teacher, run, request, compute)
        _require_probe(run, dataset)
    if isinstance(run, DistillRun):
        opened = open_teacher(
            run, request.teachers, dataset, request.runs_root,
            data_root=request.data_root, preset=request.teacher_preset, trust_program=request.trust_program,
        )  # fmt: skip
        choose_features(opened, run, lambda member: shape_of_output(member.model, run.data.crop).features is not None)
        teacher = opened = _folded_if_whole(opened, request, compute)
        teacher_shape = _move_teacher(opened, run, request, compute)
        _require_aux(run, opened, teacher_shape)
        if run.teacher.cache:
            outputs = plan_teacher_cache(run, dataset, opened, compute, processes=world.size, runs_root=request.runs_root)
    # Seed here, after the teacher: the same seed gives every method the same student.
    torch.manual_seed(run.train.seed)
    spec = run.model if fresh else run.model.model_copy(update={"weights": "none"})
    model = build_model(spec, dataset.classes.num_classes, dataset.classes.names, bands=dataset.bands, crop=run.data.crop)
    if dataset.pixels is not None:
        model.pixels = dataset.pixels.model_dump(mode="json")
        if dataset.pixels.mean is not None and dataset.pixels.std is not None:
            model.remember_pixels(dataset.pixels.mean, dataset.pixels.std)
    require_images_for_batch_norm(run, model, request.world, compute.device)
    model.to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    task = _build_task(run, weighted_loss(run, dataset), model, teacher, teacher_shape).to(compute.device)
    opponents = task.distiller.opponents() if isinstance(task, DistillationTask) else []
    _suit_to_device(task, compute, world.size, [opponent.network for opponent in opponents])
    _save_memory_and_time(run, task, compute.device, world.size)
    apart = [parameter for opponent in opponents for parameter in opponent.network.parameters()]
    # One kernel instead of some for each group of weights: on a CPU AdamW takes a fifth of the time. With fp16, which may skip a
    # step, the kernel learns that without a wait.
    fused = compute.device.type in ("cuda", "cpu") or compute.precision == "fp16"
    state = State(
        device=compute.device,
        task=task,
        optimizer=build_optimizer(run.optim, task, model.backbone, apart, fused=fused),
        opponents=build_opponents(opponents, fused=fused),
        scaler=torch.amp.GradScaler(compute.device.type, enabled=compute.precision == "fp16"),
        average=None if run.train.ema is None else MovingAverage(model, run.train.ema),
        step=0,
        validated=0,
        best=Best(),
        waiting=Waiting(),
        teacher=task.average if isinstance(task, SemiTask) else None,
    )
    return Session(
        run=run.model_copy(update={"train": run.train.model_copy(update={"precision": compute.precision})}),
        dataset=dataset,
        compute=compute,
        world=world,
        workers=loader_workers(run.data.workers, compute.device.type, world.local_size),
        model=model,
        task=task,
        trained=task,
        teacher=teacher,
        state=state,
        teacher_cache=outputs,
        runs_root=request.runs_root,
        reasons=request.reasons,
        sharded=request.fsdp,
    )


def _suit_to_device(task: SupervisedTask, compute: Compute, processes: int, opponents: Sequence[nn.Module]) -> None:
    """Exchange the layers that a GPU among several, or a CPU, computes otherwise."""
    if processes > 1 and compute.device.type == "cuda":
        # An opponent's penalty differentiates its norm twice, which synchronised batch norm cannot.
        synchronised(task, apart=opponents)
    if compute.device.type == "cpu" and compute.precision == "bf16":
        quicken_depthwise(task)


def _has_idle_weights(model: Segmenter) -> bool:
    """Whether some weights reach no output: HRNet's last fusion makes maps that no head reads.

    Found by one backward pass through a small image in eval mode, which changes neither the weights nor the random state.
    """
    was_training = model.training
    model.eval()
    side = 2 * model.backbone.strides[-1]
    with torch.enable_grad():
        prediction = model(torch.zeros(1, model.bands, side, side, device=model.pixel_mean.device))
        total = sum(logits.sum() for logits in (prediction.logits, prediction.aux_logits) if logits is not None)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    gradients = torch.autograd.grad([total], weights, allow_unused=True)
    model.train(was_training)
    return any(gradient is None for gradient in gradients)


def require_images_for_batch_norm(run: TrainRun, model: Segmenter, world: World, device: torch.device) -> None:
    """Raise InputError if a micro-batch holds one image and the network takes batch norm of maps that it pooled to one pixel.

    Tried on the meta device, without memory. On several GPUs the statistics are those of all processes' images.
    """
    train = run.train
    smallest = len(micro_batches(train.batch_size // world.size, train.batch_size, train.accumulate, world.size)[-1])
    if smallest > 1 or (world.size > 1 and device.type == "cuda"):
        return
    twin = copy.deepcopy(model).to("meta").train()
    try:
        twin(torch.zeros(1, twin.bands, *run.data.crop, device="meta"))
    except InputError:
        raise
    except Exception as error:
        if "more than 1 value per channel" not in str(error):
            return  # the meta device lacks an operation; the first step decides
        raise InputError(
            f"model.backbone: '{run.model.backbone}' cannot train on one image at a time: it takes batch norm of maps pooled to "
            f"one pixel, and a micro-batch has one image (processes {world.size}, train.batch_size {train.batch_size}, "
            f"train.accumulate {train.accumulate})",
            "set a larger train.batch_size or a smaller train.accumulate, so that every micro-batch has two images, or take "
            "another model.backbone, such as resnet18d",
        ) from error


def _require_probe(run: PretrainRun, dataset: PreparedDataset) -> None:
    """Raise InputError for a run that needs the scores of validations, and has no labels for the linear probe."""
    if run.train.early_stop is not None and not probe_names(dataset, run):
        raise InputError(
            f"train.early_stop: it needs the scores of the linear probe, and split '{run.pretrain.probe_split}' of "
            f"'{dataset.name}' gives no labelled picture for it",
            "leave train.early_stop out, or name a split with labels by `--set pretrain.probe_split=NAME`",
        )


def require_labels(run: TrainRun, dataset: PreparedDataset) -> None:
    """Raise InputError for splits without labels and a run that needs them: to score itself, or to train without a teacher or
    with a term that compares by class. Other terms teach from any picture, and pretraining reads no label."""
    split = run.data.train_split
    if isinstance(run, PretrainRun):
        dataset.names(run.data.val_split)
        return
    dataset.labelled_names(run.data.val_split, "data.val_split")
    if not isinstance(run, DistillRun):
        dataset.labelled_names(split, "data.train_split")
        return
    if any(map(dataset.has_label, dataset.names(split))):
        return
    for index, term in enumerate(run.distiller.terms):
        if term_class(type(term)).needs_labels:
            raise InputError(
                f"distiller.terms.{index}: '{term.kind}' compares by class, so it needs labels, and no picture of "
                f"data.train_split '{split}' has one",
                "leave the term out, or train on a split with labels and mix the others in by data.unlabelled",
            )


def require_methods(runs: Mapping[Method, TrainRun], dataset: PreparedDataset, teacher: Teacher | None) -> None:
    """Raise InputError that names a method whose run would be refused before its step 1, before any other method is trained.

    runs: with one model and one crop.  teacher: None if no run has one.
    """
    gives_features = cache(lambda member: shape_of_output(member.model, crop).features is not None)
    pair = None
    for method, run in runs.items():
        crop, classes = run.data.crop, dataset.classes
        try:
            require_labels(run, dataset)
            if not isinstance(run, DistillRun) or teacher is None:
                continue
            choose_features(teacher, run, gives_features)
            if pair is None:
                spec = run.model.model_copy(update={"weights": "none"})
                student = build_model(spec, classes.num_classes, classes.names, bands=dataset.bands)
                pair = Pair(shape_of_output(student, crop), shape_of_output(teacher.model, crop))
            _require_aux(run, teacher, pair.teacher)
            build_distiller(run.distiller, pair)
        except InputError as error:
            raise InputError(f"--methods: {method}: {error.message}", error.hint) from error


def _require_aux(run: DistillRun, teacher: Teacher, shape: Shape) -> None:
    """Raise InputError if a term compares auxiliary logits and the teacher has none."""
    for index, term in enumerate(run.distiller.terms):
        if "aux" in term.reads and shape.aux is None:
            raise InputError(
                f"distiller.terms.{index} ('{term.kind}') compares auxiliary logits, and the teacher {teacher.place} has none",
                "give a teacher trained with model.aux true, or leave that term out",
            )


def _build_task(
    run: TrainRun,
    loss: Sequence[LossTermSpec],
    model: Segmenter,
    teacher: Teacher | FeatureTeacher | None,
    teacher_shape: Shape | None,
) -> SupervisedTask:
    if isinstance(run, PretrainRun) and isinstance(teacher, FeatureTeacher):
        return PretrainTask(model, teacher.model, run.pretrain)
    if isinstance(run, DistillRun) and isinstance(teacher, Teacher) and teacher_shape is not None:
        pair = Pair(shape_of_output(model, run.data.crop), teacher_shape)
        return DistillationTask(model, run.labels, loss, teacher.model, build_distiller(run.distiller, pair))
    if run.semi is not None and run.data.unlabelled is not None:
        return SemiTask(model, run.labels, loss, run.semi, run.data.unlabelled.per_batch, run.train.steps)
    return SupervisedTask(model, run.labels, loss)


def _folded_if_whole(teacher: T, request: Request, compute: Compute) -> T:
    """The teacher with folded networks, unless --fsdp spreads its weights over processes: those must be of one type."""
    return teacher if request.fsdp else with_folded_networks(teacher, compute.dtype)


@overload
def _move_teacher(teacher: Teacher, run: TrainRun, request: Request, compute: Compute) -> Shape: ...
@overload
def _move_teacher(teacher: FeatureTeacher, run: TrainRun, request: Request, compute: Compute) -> None: ...
@torch.no_grad()
def _move_teacher(teacher: Teacher | FeatureTeacher, run: TrainRun, request: Request, compute: Compute) -> Shape | None:
    """Move a teacher to the device, or with --fsdp its share of weights; returns the shape of its output for a crop.

    Raises InputError if --fsdp is given for one process, for a program, or with settings under which the processes would not run
    the teacher equally often.
    """

    def shape() -> Shape | None:
        with compute.autocast():  # a folded teacher's weights have its precision
            if isinstance(teacher, Teacher):
                return shape_of_output(teacher.model, run.data.crop)
            teacher.model(teacher.model.normalize(teacher.model.blank(1, run.data.crop)))
            return None

    if not request.fsdp:
        layout = torch.channels_last if isinstance(teacher, Teacher) else torch.preserve_format
        teacher.model.to(compute.device, memory_format=layout)  # type: ignore[call-overload]
        return shape()
    if fault := _spread_fault(teacher, run, request):
        raise InputError(fault, "leave --fsdp out, or change the other")
    found: list[Shape | None] = []
    called = parts_that_run(teacher.model, lambda: found.append(shape()))
    for network in teacher.networks:
        shard_frozen(network.model, called, compute.device, request.world)
    if teacher.members:
        teacher.model.to(compute.device)  # the mean's own numbers; its networks are there
    return found[0]


def _spread_fault(teacher: Teacher | FeatureTeacher, run: TrainRun, request: Request) -> str:
    """Why --fsdp cannot spread the teacher of this run over its processes; empty if it can."""
    if request.world.size == 1:
        return "--fsdp spreads the teacher over several processes, and this run has one"
    if run.train.accumulate == "auto":  # type: ignore[comparison-overlap]
        return "--fsdp cannot be combined with train.accumulate=auto: each process tries its memory alone"
    if not isinstance(run, DistillRun) or not isinstance(teacher, Teacher):
        return ""
    if teacher.is_program:
        return f"--fsdp cannot spread {teacher.place} over processes: it is a program, whose weights are part of its code"
    if run.teacher.cache:
        return "--fsdp cannot be combined with teacher.cache: each process computes other images for the cache"
    if run.teacher.overlap:
        return "--fsdp cannot be combined with teacher.overlap: the teacher's messages would overtake the student's"
    if run.train.compile:
        return "--fsdp cannot be combined with train.compile, which would compile a teacher whose weights come and go"
    return ""


def shape_of_output(model: Network, crop: tuple[int, int]) -> Shape:
    """The channels and sizes of the network's output for one crop (H, W), found by running it on a black image."""
    was_training = model.training
    model.eval()
    shape = Shape.of(forward_images(model, model.blank(1, crop)))
    model.train(was_training)
    return shape


def _save_memory_and_time(run: TrainRun, task: SupervisedTask, device: torch.device, processes: int) -> None:
    """Switch on activation checkpointing, compilation and the teacher's own stream if the run wants them.

    Raises InputError if that is not possible.
    """
    recompute_if_wanted(run, task)
    if run.train.compile:
        require_compiler(device)
        if run.train.compile == "reduce-overhead":
            _require_graphs(run, device, processes)
        task.compile_networks(None if run.train.compile is True else run.train.compile)
    if isinstance(run, DistillRun) and run.teacher.overlap and device.type == "cuda" and isinstance(task, DistillationTask):
        # cuBLAS promises the same bits only where a single stream is used.
        task.overlap = not run.train.deterministic


def _require_graphs(run: TrainRun, device: torch.device, processes: int) -> None:
    """Raise InputError if CUDA graphs cannot hold a step of this run."""
    if device.type != "cuda":
        fault = f"which records CUDA graphs, and the device is '{device}'"
    elif processes > 1:
        fault = f"whose CUDA graphs cannot hold what {processes} processes send each other"
    else:
        return
    raise InputError(f"train.compile: got 'reduce-overhead', {fault}", "use --set train.compile=true, or false")


def recompute_if_wanted(run: TrainRun, task: SupervisedTask) -> None:
    """Switch on activation checkpointing if the run wants it. Raises InputError if that is not possible."""
    if run.train.activation_checkpointing and not recompute_blocks(task.model.backbone):
        raise InputError(
            f"train.activation_checkpointing: got true, but '{run.model.backbone}' has no blocks that can be computed again",
            "set it to false, or choose another model.backbone, such as resnet18d",
        )


def _reads_aux(run: TrainRun) -> bool:
    """Whether any term of the loss reads the auxiliary logits, and so trains their head."""
    terms = run.distiller.terms if isinstance(run, DistillRun) else ()
    return any(term.logits == "aux" for term in run.loss) or any("aux" in term.reads for term in terms)
