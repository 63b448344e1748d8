"""The training loop. One loop for training and distilling: a task turns a batch into a loss, and the loop knows no method."""

import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor

from segctl.data.loader import Batch, training_batches
from segctl.engine.distributed import without_averaging
from segctl.engine.evaluate import Scoring, StoppedCountingError, count_split
from segctl.engine.meter import Meter
from segctl.engine.optim import set_learning_rates
from segctl.engine.setup import Session
from segctl.engine.signals import Requests, requests_between_steps
from segctl.engine.tasks import Share
from segctl.engine.watch import RunLog
from segctl.errors import StoppedError
from segctl.files import write_whole
from segctl.losses.pixels import IGNORE_INDEX
from segctl.metrics.scores import score
from segctl.models import save
from segctl.runs import RunFolder


def fit(session: Session, folder: RunFolder, log: RunLog, saved: Callable[[], None] = lambda: None) -> None:
    """Take the run from where its state stands to its last step; `saved` is called after every checkpoint.

    Raises StoppedError on Ctrl-C and SIGTERM, between two steps and with last.pt written.
    """
    train, state = session.run.train, session.state
    meter = Meter(session, log)

    def write_checkpoint() -> None:
        session.world.together(state.require_finite)
        state.save(folder.last, session.owner(), session.world)
        saved()

    with requests_between_steps() as requests:
        if _validation_is_due(session):
            validate(session, folder, log, requests)
        for batch in meter.timed(_batches(session)):
            set_learning_rates(state.optimizer, session.run.schedule, state.step, train.steps)
            meter.add(take_step(session, batch))
            state.step += 1
            asked = requests.agree(session.world)
            meter.report_when_due()
            with meter.paused():
                if _validation_is_due(session) and asked.stop is None:
                    validate(session, folder, log, requests)
                    asked = requests.agree(session.world)
                if state.step % train.checkpoint_every == 0 or state.step == train.steps or asked.stop or asked.save:
                    requests.save = False
                    write_checkpoint()
            if asked.stop:
                raise _stopped(asked.stop, session, folder, log)


def _validation_is_due(session: Session) -> bool:
    """Whether the step just taken is one to validate after, and has not been validated yet."""
    step, train = session.state.step, session.run.train
    return step > session.state.validated and (step % train.validate_every == 0 or step == train.steps)


def _batches(session: Session) -> Iterator[Batch]:
    run, train = session.run, session.run.train
    return training_batches(
        session.dataset,
        run.data.train_split,
        view=run.data,
        batch_size=train.batch_size,
        seed=train.seed,
        first_step=session.state.step,
        last_step=train.steps,
        workers=session.workers,
        rank=session.world.rank,
        size=session.world.size,
    )


def take_step(session: Session, batch: Batch) -> dict[str, Tensor]:
    """One optimiser step on this process's share of a global batch; its part of the weighted loss terms, still on the device."""
    state, device, world, train = session.state, session.compute.device, session.world, session.run.train
    images = batch.images.to(device, non_blocking=True)
    labels = batch.labels.to(device, non_blocking=True)
    valid = (batch.labels != IGNORE_INDEX).sum((1, 2))
    total = max(1, int(world.total(valid.sum())))
    session.trained.train()
    state.clear_gradients()
    sums: dict[str, Tensor] = {}
    # As many micro-batches on every process, whose shares of the batch may differ by an image.
    parts = torch.arange(len(images)).tensor_split(min(train.accumulate, max(1, train.batch_size // world.size)))
    for part in parts:
        share = Share(pixels=int(valid[part].sum()) / total, images=len(part) / train.batch_size)
        chosen = slice(int(part[0]), int(part[-1]) + 1)
        with nullcontext() if part is parts[-1] else without_averaging(session.trained):
            with session.compute.autocast():
                step = session.trained(images[chosen], labels[chosen], share)
            scaled: Tensor = state.scaler.scale(step.loss * world.size)  # gradients are averaged over the processes
            torch.autograd.backward(scaled)
        sums = {name: value + sums[name] if name in sums else value for name, value in step.terms.items()}
    state.apply_gradients()
    if state.average is not None:
        state.average.update_parameters(session.model)
    return sums


def validate(session: Session, folder: RunFolder, log: RunLog, requests: Requests) -> None:
    """Score the validation split under the run's protocol, and keep the best weights; a request to stop ends it early."""
    run, state, model, world = session.run, session.state, session.evaluated_model, session.world
    world.align(model)

    def advance(done: int, total: int) -> None:
        log.watch.advance(f"validating on {run.data.val_split}", done, total)
        if requests.stop is not None:
            raise StoppedCountingError

    how = Scoring(run.evaluate, session.compute, session.workers, world)
    try:
        counted = count_split(model, session.dataset, run.data.val_split, how, advance)
    except StoppedCountingError:
        return  # made up for when the run goes on
    scores = score(counted.table, binary=session.dataset.classes.binary)
    log.validated(state.step, scores)
    state.validated = state.step
    value = scores["mIoU_D"]
    if value is not None and value > state.best.score:
        state.best.score, state.best.step = value, state.step
        if world.is_main:
            save(folder.best, model, run, session.dataset.classes.names)


def _stopped(number: signal.Signals, session: Session, folder: RunFolder, log: RunLog) -> StoppedError:
    message = f"stopped by {number.name} after step {session.state.step} of {session.run.train.steps}; last.pt is saved"
    log.note(message)
    return StoppedError(number, message, f"go on with `{session.resume_line(folder.path)}`")


def finish(session: Session, folder: RunFolder, log: RunLog) -> None:
    """Write model.pt, which marks the run as finished and so comes last of all."""
    run, state = session.run, session.state
    session.world.align(session.evaluated_model)
    if not session.world.is_main:
        return
    best = run.train.select == "best" and folder.best.is_file()
    step = state.best.step if best else state.step
    chosen = f"the best validation, after step {step} ({state.best.score:.2f} mIoU_D)" if best else f"step {step}"
    log.event("end", {"step": state.step, "weights_step": step, "weights_of": chosen})
    log.note(f"finished after {state.step} steps; model.pt holds the weights of {chosen}")
    if best:
        write_whole(folder.model, lambda partial: _copy(folder.best, partial))
    else:
        save(folder.model, session.evaluated_model, run, session.dataset.classes.names)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
