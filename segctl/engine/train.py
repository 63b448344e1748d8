"""The training loop. One loop for training and distilling: a task turns a batch into a loss, and the loop knows no method."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from segctl.data.loader import Batch, training_batches
from segctl.engine.evaluate import Scoring, count_split
from segctl.engine.meter import Meter
from segctl.engine.optim import set_learning_rates
from segctl.engine.setup import Session
from segctl.engine.signals import StopRequest, stop_between_steps
from segctl.engine.tasks import Share
from segctl.engine.watch import RunLog
from segctl.errors import StoppedError
from segctl.files import write_whole
from segctl.losses.pixels import IGNORE_INDEX
from segctl.metrics.scores import score
from segctl.models import save
from segctl.runs import RunFolder


def fit(session: Session, folder: RunFolder, log: RunLog) -> None:
    """Take the run from where its state stands to its last step, and leave model.pt. Raises StoppedError on Ctrl-C or SIGTERM."""
    train, state = session.run.train, session.state
    meter = Meter(session, log)
    with stop_between_steps() as stop:
        for batch in meter.timed(_batches(session)):
            set_learning_rates(state.optimizer, session.run.schedule, state.step, train.steps)
            meter.add(take_step(session, batch))
            state.step += 1
            last = state.step == train.steps
            meter.report_when_due()
            with meter.paused():
                if state.step % train.validate_every == 0 or last:
                    validate(session, folder, log)
                if state.step % train.checkpoint_every == 0 or last or stop.signal:
                    meter.means()  # a state whose loss is no number is not worth keeping
                    state.save(folder.last, session.owner())
            if stop.signal and not last:
                raise _stopped(stop, session, folder, log)
    finish(session, folder, log)


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
    )


def take_step(session: Session, batch: Batch) -> dict[str, Tensor]:
    """One optimiser step on a whole batch; its weighted loss terms, still on the device."""
    state, device = session.state, session.compute.device
    images = batch.images.to(device, non_blocking=True)
    labels = batch.labels.to(device, non_blocking=True)
    valid = (batch.labels != IGNORE_INDEX).sum((1, 2))
    total = max(1, int(valid.sum()))
    session.task.train()
    state.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for part in torch.arange(len(images)).chunk(session.run.train.accumulate):
        share = Share(pixels=int(valid[part].sum()) / total, images=len(part) / len(images))
        chosen = slice(int(part[0]), int(part[-1]) + 1)
        with session.compute.autocast():
            step = session.task(images[chosen], labels[chosen], share)
        scaled: Tensor = state.scaler.scale(step.loss)
        torch.autograd.backward(scaled)
        sums = {name: value + sums[name] if name in sums else value for name, value in step.terms.items()}
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.average is not None:
        state.average.update_parameters(session.model)
    return sums


def validate(session: Session, folder: RunFolder, log: RunLog) -> None:
    """Score the validation split under the run's protocol, and keep the best weights."""
    run, state, model = session.run, session.state, session.evaluated_model
    split = run.data.val_split
    counted = count_split(
        model,
        session.dataset,
        split,
        Scoring(run.evaluate, session.compute, session.workers),
        lambda done, total: log.watch.advance(f"validating on {split}", done, total),
    )
    scores = score(counted.table, binary=session.dataset.classes.binary)
    log.validated(state.step, scores)
    value = scores["mIoU_D"]
    if value is not None and value > state.best.score:
        state.best.score, state.best.step = value, state.step
        save(folder.best, model, run, session.dataset.classes.names)


def _stopped(stop: StopRequest, session: Session, folder: RunFolder, log: RunLog) -> StoppedError:
    assert stop.signal is not None
    message = f"stopped by {stop.signal.name} after step {session.state.step} of {session.run.train.steps}; last.pt is saved"
    log.note(message)
    return StoppedError(stop.signal, message, f"go on with `segctl train --resume --run {folder.path}`")


def finish(session: Session, folder: RunFolder, log: RunLog) -> None:
    """Write model.pt, which marks the run as finished."""
    run, state = session.run, session.state
    if run.train.select == "best" and folder.best.is_file():
        write_whole(folder.model, lambda partial: _copy(folder.best, partial))
        chosen = f"the best validation, after step {state.best.step} ({state.best.score:.2f} mIoU_D)"
    else:
        save(folder.model, session.evaluated_model, run, session.dataset.classes.names)
        chosen = f"step {state.step}"
    log.event("end", {"step": state.step, "weights_of": chosen})
    log.note(f"finished after {state.step} steps; model.pt holds the weights of {chosen}")


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)
