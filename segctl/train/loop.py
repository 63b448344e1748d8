"""The training loop. One loop for training and distilling: a task turns a batch into a loss, and the loop knows no method."""

import signal
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from segctl.data.batches.loader import Batch, training_batches
from segctl.errors import StoppedError
from segctl.losses.pixels import count_valid
from segctl.runs import RunFolder
from segctl.runtime.device import failure_in_words
from segctl.runtime.phases import phase
from segctl.runtime.signals import requests_between_steps
from segctl.runtime.world import without_averaging
from segctl.train.optimizer import set_learning_rates
from segctl.train.profile.profiler import Profiler
from segctl.train.run_log import RunLog
from segctl.train.session import Session
from segctl.train.step_stats import Alarm, Meter
from segctl.train.tasks import Share
from segctl.train.validate import validate


def fit(
    session: Session,
    folder: RunFolder,
    log: RunLog,
    saved: Callable[[], None] = lambda: None,
    profiler: Profiler | None = None,
) -> None:
    """Take the run from where its state stands to its last step; `saved` is called after every checkpoint.

    Raises StoppedError on Ctrl-C and SIGTERM, between two steps and with last.pt written.
    """
    with profiler or nullcontext(), closing(steps(session, folder, log, saved)) as taken:
        for batch in taken:
            if profiler is not None:
                profiler.step_taken(batch)


def steps(
    session: Session, folder: RunFolder, log: RunLog, saved: Callable[[], None] = lambda: None
) -> Generator[Batch, None, None]:
    """The same, as one goes: the batch of every step after it has been taken. Time spent on it outside is no step's time."""
    train, state = session.run.train, session.state
    meter = Meter(session, log)

    due = Alarm(60 * train.checkpoint_minutes, session.world)
    with requests_between_steps() as requests:
        if _validation_is_due(session):
            validate(session, folder, log, requests)
        for batch in meter.timed(_batches(session)):
            set_learning_rates(state.optimizer, session.run.schedule, state.step, train.steps)
            with failure_in_words(session.compute.device):
                taken = take_step(session, batch)
            meter.add(taken.terms, taken.gradient_norm, batch.names)
            state.step += 1
            with phase("peers"):
                asked = requests.agree(session.world)
            meter.report_when_due()
            with meter.paused(), phase("between"):
                if _validation_is_due(session) and asked.stop is None:
                    validate(session, folder, log, requests)
                    asked = requests.agree(session.world)
                if state.step % train.checkpoint_every == 0 or state.step == train.steps or asked.stop or asked.save or due():
                    requests.save = False
                    _write_checkpoint(session, folder)
                    due.restart()
                    saved()
            if asked.stop:
                raise _stopped(asked.stop, session, folder, log)
            with meter.paused():
                yield batch


def _write_checkpoint(session: Session, folder: RunFolder) -> None:
    session.world.together(session.state.require_finite)
    session.state.save(folder.last, session.owner(), session.world)


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
        answers=session.answers,
    )


@dataclass(frozen=True)
class Taken:
    """What one step leaves: this process's part of the weighted loss terms, and the gradients' norm, still on the device."""

    terms: dict[str, Tensor]
    gradient_norm: Tensor


def take_step(session: Session, batch: Batch) -> Taken:
    """One optimiser step on this process's share of a global batch."""
    state, device, world, train = session.state, session.compute.device, session.world, session.run.train
    with phase("copy"):
        images = batch.images.to(device, non_blocking=True)
        labels = batch.labels.to(device, non_blocking=True)
        answers = {name: maps.to(device, non_blocking=True) for name, maps in batch.answers.items()}
    valid = count_valid(batch.labels)
    with phase("peers"):
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
                known = [{name: maps[chosen] for name, maps in answers.items()}] if answers else []
                step = session.trained(images[chosen], labels[chosen], share, *known)
            with phase("backward"):
                scaled: Tensor = state.scaler.scale(step.loss * world.size)  # gradients are averaged over the processes
                torch.autograd.backward(scaled)
        sums = {name: value + sums[name] if name in sums else value for name, value in step.terms.items()}
    with phase("optimiser"):
        norm = state.apply_gradients(train.clip_norm)
        if state.average is not None:
            state.average.update_parameters(session.model)
    return Taken(sums, norm)


def _stopped(number: signal.Signals, session: Session, folder: RunFolder, log: RunLog) -> StoppedError:
    message = f"stopped by {number.name} after step {session.state.step} of {session.run.train.steps}; last.pt is saved"
    log.note(message)
    return StoppedError(number, message, f"go on with `{session.resume_line(folder.path)}`")
