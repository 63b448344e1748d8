"""How much GPU memory a training step needs, found without a GPU by taking the step with tensors that have no content."""

import copy
from dataclasses import dataclass

import torch

from segctl.data.batches.micro_batches import micro_batches
from segctl.data.batches.strong_views import StrongViews
from segctl.data.datasets import class_table
from segctl.distillers import build_distiller
from segctl.distillers.align import Pair
from segctl.models import Segmenter, build_model
from segctl.models.moving_average import MovingAverage
from segctl.runtime.device import Precision
from segctl.runtime.live_bytes import LiveBytes
from segctl.schema.load import load_preset
from segctl.schema.models import ModelSpec
from segctl.schema.run import DistillRun, TrainRun
from segctl.train.build import recompute_if_wanted, shape_of_output
from segctl.train.checkpoint import Best, State
from segctl.train.optimizer import build_opponents, build_optimizer
from segctl.train.pretrain.task import PretrainTask
from segctl.train.semi.task import SemiTask
from segctl.train.session import Session
from segctl.train.tasks import WHOLE, DistillationTask, Extra, SupervisedTask

GIB = 2**30


@dataclass(frozen=True)
class StepMemory:
    """GiB that tensors hold: `peak` at most during a step, `kept` between two steps."""

    peak: float
    kept: float


def step_memory(run: TrainRun, images: int, precision: Precision) -> StepMemory:
    """The memory of a step of a preset's run on a GPU; the teacher is its preset's network. Takes 5 to 20 seconds.

    images: in a micro-batch, of which one is in memory at a time: batch / (processes · train.accumulate).
    Raises InputError for a network that cannot be built.
    """
    task = _on_no_device(run)
    recompute_if_wanted(run, task)
    return memory_of_task(task, run, images, precision)


def memory_of_session(session: Session, precision: Precision) -> StepMemory | None:
    """The memory of a step of a session's run on a GPU, with its own teacher.

    None for a teacher that does not run on tensors without content, such as a TorchScript program.
    """
    run = session.run
    processes, train = session.world.size, run.train
    images = len(micro_batches(train.batch_size // processes, train.batch_size, train.accumulate, processes)[0])
    try:
        task = copy.deepcopy(session.task).to("meta")
        if isinstance(task, DistillationTask | PretrainTask):
            task.teacher.to("meta")
        return memory_of_task(task, run, images, precision)
    except Exception:  # a program may fail in any way, and a run needs no estimate
        return None


def memory_of_task(task: SupervisedTask, run: TrainRun, images: int, precision: Precision) -> StepMemory:
    """The memory of a step: weights, gradients, optimiser, moving average, activations, teacher and losses.

    task: its networks on the meta device; it is of no use afterwards.  images: labelled ones in a micro-batch.
    Losses use their GPU kernels where they can. Where they cannot, the figure is that of torch's own operations, which need more
    than the compiled ones. Several processes hold the averaged gradients a second time, which is not counted.
    """
    beside = 0
    if run.data.unlabelled is not None:  # a micro-batch has its part of these on top
        beside = -(-run.data.unlabelled.per_batch * images // run.train.batch_size)
        images += beside
    opponents = task.distiller.opponents() if isinstance(task, DistillationTask) else []
    apart = [parameter for opponent in opponents for parameter in opponent.network.parameters()]
    with LiveBytes() as memory:
        task.to_empty(device="cpu")
        if isinstance(task, DistillationTask | PretrainTask):
            task.teacher.to_empty(device="cpu")
        state = State(
            device=torch.device("cpu"),
            task=task,
            optimizer=build_optimizer(run.optim, task, task.model.backbone, apart),
            opponents=build_opponents(opponents),
            scaler=torch.amp.GradScaler("cpu", enabled=False),
            average=None if run.train.ema is None else MovingAverage(task.model, run.train.ema),
            step=0,
            validated=0,
            best=Best(),
            teacher=task.average if isinstance(task, SemiTask) else None,
        )
        for parameter in task.parameters():
            parameter.grad = torch.zeros_like(parameter)
        state.apply_gradients(run.train.clip_norm)  # so that the optimiser has its own tensors
        state.clear_gradients()
        kept = memory.peak = memory.live
        task.train()
        pixels = torch.zeros(images, *run.data.crop, 3, dtype=torch.uint8)
        label = torch.zeros(images, *run.data.crop, dtype=torch.uint8)
        lacking = None if run.semi is None else torch.ones_like(label, dtype=torch.bool)
        strong = None if run.semi is None else StrongViews.blank(run.semi, beside, run.data.crop, 3)
        for _ in range(min(2, run.train.accumulate)):  # the second micro-batch finds the gradients of the first
            with torch.autocast("cpu", torch.bfloat16, enabled=precision != "fp32"):
                loss = task(pixels, label, WHOLE, Extra(unlabelled=lacking, strong=strong)).loss
            torch.autograd.backward(loss)
            del loss
        state.update_average(task.model, state.apply_gradients(run.train.clip_norm))
    return StepMemory(memory.peak / GIB, kept / GIB)


def _on_no_device(run: TrainRun) -> SupervisedTask:
    """The run's task with networks on the meta device, which takes no memory."""
    classes = class_table(run.data.dataset).num_classes
    model = _network(run.model, classes)
    if run.semi is not None and run.data.unlabelled is not None:
        return SemiTask(model, run.labels, run.loss, run.semi, run.data.unlabelled.per_batch, run.train.steps)
    if not isinstance(run, DistillRun):
        return SupervisedTask(model, run.labels, run.loss)
    teacher = _network(load_preset(run.teacher.preset).model, classes)
    pair = Pair(shape_of_output(model, run.data.crop), shape_of_output(teacher, run.data.crop))
    return DistillationTask(model, run.labels, run.loss, teacher, build_distiller(run.distiller, pair))


def _network(spec: ModelSpec, classes: int) -> Segmenter:
    with torch.device("meta"):
        model = build_model(spec.model_copy(update={"weights": "none"}), classes)
    return model.to(memory_format=torch.channels_last)
