"""How many images go through the network at once: `train.accumulate: auto`, and what to say where a batch does not fit.

The batch stays what the preset says; only the number of micro-batches changes. On a GPU steps are taken with fewer and fewer
images until one fits. On a CPU nothing fails until the system kills the process, so the need is estimated there from what the
backward pass keeps of two images.
"""

import gc
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from segctl.data.batches.loader import Batch
from segctl.data.batches.micro_batches import largest_micro_batch
from segctl.data.batches.strong_views import StrongViews
from segctl.errors import InputError, SegctlError
from segctl.ignored import IGNORED
from segctl.losses.across_ranks import alone
from segctl.runtime.memory import TRAIN_WITH_LESS, free_memory_mb
from segctl.runtime.world import World
from segctl.schema.cross_checks import group_faults
from segctl.schema.run import TrainRun, with_accumulation
from segctl.train.build import build_session, require_images_for_batch_norm
from segctl.train.session import Request, Session
from segctl.train.tasks import Extra

TakeStep = Callable[[Session, Batch], object]
"""`segctl.train.loop.take_step`; passed on, because the loop itself asks here what fits."""

MAY_BE_USED = 0.8
"""The part of a CPU's free memory that a step may take."""
BACKWARD = 1.5
"""What a step takes for each byte that its forward pass keeps: the backward pass needs room for gradients too."""


def with_fitting_batch(request: Request, take_step: TakeStep) -> Request:
    """The request with a number for `train.accumulate: auto`, and a sentence with the reason; another request as it is.

    The networks of the trial are thrown away, so the run is bit-identical to one that was started with that number.
    Every process tries its own device, and all take the largest micro-batch that fits on every one.  Raises SegctlError where
    nothing fits.
    """
    if request.run.train.accumulate != "auto":  # type: ignore[comparison-overlap]
        return request
    world, batch_size = request.world, request.run.train.batch_size
    share = -(-batch_size // world.size)
    one = with_accumulation(request.run, 1)
    one = one.model_copy(update={"train": one.train.model_copy(update={"batch_size": share})})
    with alone():
        session = build_session(replace(request, run=one, world=World(local_size=world.local_size)))
        choices = _choices(request.run, session, world.size)
        found, reason = _largest(session, choices, world.size, take_step)
    del session
    _give_back()
    agreed = int(world.largest(torch.tensor(len(choices) if found is None else choices.index(found))))
    if agreed == len(choices):
        least = largest_micro_batch(batch_size, choices[-1], world.size)
        raise SegctlError(f"out of memory with {_images(least)} at a time: {reason}", TRAIN_WITH_LESS)
    accumulate = choices[agreed]
    images = largest_micro_batch(batch_size, accumulate, world.size)
    said = f"micro-batches of {_images(images)} (train.accumulate {accumulate} of a batch of {batch_size}): {reason}"
    return replace(request, run=with_accumulation(request.run, accumulate), reasons=(*request.reasons, said))


def smaller_batch_in_words(session: Session, take_step: TakeStep) -> str:
    """What to type after a step did not fit into memory: the largest micro-batch that does, found by trying.

    The session cannot be trained further.  With several processes nothing is tried, because the others wait for this one.
    """
    train = session.run.train
    choices = _choices(session.run, session, session.world.size)
    fewer = [accumulate for accumulate in choices if accumulate > train.accumulate]
    try:
        found = _largest(session, fewer, 1, take_step)[0] if session.world.size == 1 and fewer else None
    except (RuntimeError, MemoryError):  # the trial itself did not fit
        found = None
    if found is None:
        return TRAIN_WITH_LESS
    images = largest_micro_batch(train.batch_size, found, 1)
    return (
        f"{_images(images)} at a time fit: start a new run with --set train.accumulate={found}, which keeps the batch of "
        f"{train.batch_size}"
    )


def _choices(run: TrainRun, session: Session, processes: int) -> list[int]:
    """Numbers of micro-batches that the run can be trained with, the largest micro-batch first; each gives another size."""
    batch = run.train.batch_size
    found: dict[int, int] = {}
    for accumulate in (number for number in range(1, batch + 1) if batch % number == 0):
        found.setdefault(largest_micro_batch(batch, accumulate, processes), accumulate)
    possible = [with_accumulation(run, accumulate) for accumulate in found.values()]
    return [choice.train.accumulate for choice in possible if _can_train(choice, session, processes)]


def _can_train(run: TrainRun, session: Session, processes: int) -> bool:
    """Whether every micro-batch has as many images as the loss and batch norm need."""
    try:
        require_images_for_batch_norm(run, session.model, World(size=processes), session.compute.device)
    except InputError:
        return False
    return not group_faults(run, processes)


def _largest(session: Session, choices: list[int], processes: int, take_step: TakeStep) -> tuple[int | None, str]:
    """The first of the choices that fits into memory, None where none does, and why."""
    if session.compute.device.type == "cpu":
        return _largest_reckoned(session, choices, processes)
    return _largest_tried(session, choices, processes, take_step)


def _largest_tried(session: Session, choices: list[int], processes: int, take_step: TakeStep) -> tuple[int | None, str]:
    """As `_largest`, by steps: two each, because the optimiser makes its moments in the first."""
    failed, device = None, session.compute.device
    batch = _black_batch(session, session.run.train.batch_size)
    for accumulate in choices:
        session.run = with_accumulation(session.run, accumulate)
        try:
            take_step(session, batch)
            take_step(session, batch)
        except torch.OutOfMemoryError:
            failed = accumulate
        else:
            break
        finally:
            session.state.clear_gradients()
            _give_back()
    else:
        return None, f"the memory of {device} is too small"
    if failed is None:
        return accumulate, "the whole batch fits into memory"
    images = largest_micro_batch(session.run.train.batch_size, failed, 1)
    return accumulate, f"{_images(images)} at a time do not fit into the memory of {device}"


def _largest_reckoned(session: Session, choices: list[int], processes: int) -> tuple[int | None, str]:
    """As `_largest`, by an estimate."""
    fixed, each = needed_mb(session)
    may_use = MAY_BE_USED * free_memory_mb(session.compute.device) / session.world.local_size
    batch, reason = session.run.train.batch_size * processes, "the whole batch fits into memory"
    for accumulate in choices:
        images = largest_micro_batch(batch, accumulate, processes)
        need = fixed + images * each
        if need <= may_use:
            return accumulate, reason
        reason = (
            f"a step with {_images(images)} at a time takes about {need / 1e3:.1f} GB, and {may_use / 1e3:.1f} GB may be used"
        )
    return None, reason


def needed_mb(session: Session) -> tuple[float, float]:
    """What a step takes beside the networks, in MB: a fixed part, and a part for each image of the micro-batch."""
    kept: dict[int, int] = {}
    known = {tensor.untyped_storage().data_ptr() for tensor in (*session.task.parameters(), *session.task.buffers())}

    def keep(tensor: Tensor) -> Tensor:
        """A tensor of any shape -> itself."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    images = min(2, session.run.train.batch_size)  # batch norm takes no single image
    batch = _black_batch(session, images)
    device = session.compute.device
    session.task.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), session.compute.autocast():
        lacking = None if batch.unlabelled is None else batch.unlabelled.to(device)
        strong = None if batch.strong is None else batch.strong.to(device)
        step = session.task(batch.images.to(device), batch.labels.to(device), extra=Extra(unlabelled=lacking, strong=strong))
    del step
    weights = sum(weight.nbytes for weight in session.task.parameters() if weight.requires_grad)
    return 3 * weights / 1e6, BACKWARD * sum(kept.values()) / images / 1e6  # the gradient, and two moments


def _black_batch(session: Session, images: int) -> Batch:
    """A batch of black images whose labels show every class: what is computed from it is not used.

    images: without those that data.unlabelled mixes in, which are added as for a batch of that size.
    """
    height, width = session.run.data.crop
    data, classes = session.dataset, session.dataset.classes.num_classes
    label = (torch.arange(height * width) % classes).to(torch.uint8).view(1, height, width).repeat(images, 1, 1)
    spec, semi = session.run.data.unlabelled, session.run.semi
    beside = 0 if spec is None else -(-spec.per_batch * images // session.run.train.batch_size)
    unlabelled = torch.arange(images + beside).view(-1, 1, 1) >= images
    label = torch.cat([label, label[:1].expand(beside, -1, -1)]) if beside else label
    every = images + beside
    return Batch(
        session.task.model.blank(every, (height, width)).cpu(),
        label.masked_fill(unlabelled, IGNORED),
        [""] * every,
        unlabelled=unlabelled.expand(-1, height, width).contiguous() if beside else None,
        strong=None if semi is None else StrongViews.blank(semi, beside, (height, width), data.bands, data.pixel_type),
    )


def _give_back() -> None:
    """Give memory that nothing refers to any more back to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _images(count: int) -> str:
    return f"{count} image{'s' if count > 1 else ''}"
