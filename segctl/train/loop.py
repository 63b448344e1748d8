"""From the first step of a run to its shipped model. One loop for training and distillation: a task turns a batch into a loss."""

import signal
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from segctl.data.batches.loader import Batch, training_batches
from segctl.data.batches.micro_batches import mixed_micro_batches
from segctl.errors import SegctlError, StoppedError
from segctl.files import FREE_SPACE, damage_of_zip, write_json
from segctl.losses.pixels import count_marked, count_valid
from segctl.models import read, save
from segctl.models.saving import write_saved
from segctl.runs import MODEL_FILE, RunFolder
from segctl.runtime.compiler import compile_failure_in_words
from segctl.runtime.determinism import missing_determinism_in_words
from segctl.runtime.launcher import remember_resume_command
from segctl.runtime.memory import out_of_memory_in_words, peak_memory_mb
from segctl.runtime.phases import phase
from segctl.runtime.signals import requests_between_steps
from segctl.runtime.world import without_averaging
from segctl.schema.labels import RaterLabels
from segctl.train.auto.by_memory import smaller_batch_in_words
from segctl.train.environment import now
from segctl.train.mask_stage import StageFolder, learn_stages
from segctl.train.optimizer import set_learning_rates
from segctl.train.profile.profiler import Profiler, profiler_of_run
from segctl.train.profile.summary import Window
from segctl.train.run_log import RunLog
from segctl.train.session import Session
from segctl.train.step_stats import Alarm, StepStats
from segctl.train.tasks import Extra, Share
from segctl.train.validate import validate


def run_to_end(session: Session, folder: RunFolder, log: RunLog, runs_root: Path, window: Window | None) -> None:
    """Do what comes before the steps, take the steps, and write model.safetensors.

    window: the steps to profile, if any.  Raises StoppedError on Ctrl-C and SIGTERM; the run can be resumed.
    """
    line = session.resume_line(folder.path)
    session.world.on_main(lambda: remember_resume_command(line))
    try:
        _run_to_end(session, folder, log, runs_root, window, line)
        log.close(finished=True)
    except SegctlError as error:
        if error.hint != FREE_SPACE:
            raise
        # The same command again would be refused: the run's folder exists by now.
        raise SegctlError(error.message, f"free disk space, then resume with `{line}`") from error
    finally:
        log.close(finished=False)  # does nothing to trackers that are closed


def _run_to_end(session: Session, folder: RunFolder, log: RunLog, runs_root: Path, window: Window | None, line: str) -> None:
    world = session.world
    if session.teacher_cache is not None:
        session.teacher_cache.fill(
            world, log.note, lambda done, all: log.watch.advance("filling the teacher cache", done, all), line
        )
    if session.state.step == 0:
        stages = StageFolder(runs_root, log.note, lambda done, all: log.watch.advance("learning masks", done, all), line)
        world.main_first(lambda: learn_stages(session, stages))
    environment = folder.read_environment()
    earlier_s, began = environment.get("seconds", 0.0), time.perf_counter()
    earlier_peak = environment.get("peak_memory_mb") or 0.0

    def write_environment() -> None:
        environment["seconds"] = earlier_s + time.perf_counter() - began
        environment["seconds_per_step"] = _median_step_s(folder)
        environment["peak_memory_mb"] = max(earlier_peak, peak_memory_mb(session.compute.device))
        environment["finished"] = now() if session.ended else None
        write_json(folder.environment, environment)

    profiler = None if window is None else world.on_main(lambda: profiler_of_run(session, window, folder, log))
    fit(session, folder, log, saved=lambda: world.on_main(write_environment), profiler=profiler)
    world.on_main(write_environment)
    world.align(session.evaluated_model)
    world.on_main(lambda: _ship_model(session, folder, log))


def _median_step_s(folder: RunFolder) -> float | None:
    """The median time of a step in seconds over the log's reports: a median, so that start-up and interruptions count little."""
    times = sorted(event["step_s"] for event in folder.read_log() if event["event"] == "step" and event.get("step_s") is not None)
    return float(times[len(times) // 2]) if times else None


def _ship_model(session: Session, folder: RunFolder, log: RunLog) -> None:
    """Write the network's file: the best validation's weights, or the last. Its presence means "finished", so it comes last."""
    run, state = session.run, session.state
    best = run.train.select == "best" and folder.best.is_file()
    if best and (damage := damage_of_zip(folder.best)):
        line = session.resume_line(folder.path)
        raise SegctlError(
            f"'{folder.best}' is damaged: {damage}",
            f"delete it, then resume with `{line}`: {MODEL_FILE} then holds the last step's weights",
        )
    step = state.best.step if best else state.step
    chosen = f"the best validation, after step {step} ({state.best.score:.2f} {run.train.select_by})" if best else f"step {step}"
    log.event("end", {"step": state.step, "weights_step": step, "weights_of": chosen})
    if session.stopped_early:
        waited, score = state.waiting.validations, state.waiting.score
        plural = "s" if waited > 1 else ""
        log.note(f"stopped early: {waited} validation{plural} in a row without a better {run.train.watched} than {score:.2f}")
    log.note(f"finished after {state.step} steps; {MODEL_FILE} holds the weights of {chosen}")
    if best:
        saved = read(folder.best)
        write_saved(folder.model, saved.run, saved.class_names, saved.weights, saved.pixels)
    else:
        save(folder.model, session.evaluated_model, run, session.dataset.classes.names)


def fit(
    session: Session,
    folder: RunFolder,
    log: RunLog,
    saved: Callable[[], None] = lambda: None,
    profiler: Profiler | None = None,
) -> None:
    """Take all steps from the session's state to the last step; `saved` is called after every checkpoint.

    Raises StoppedError on Ctrl-C and SIGTERM, between two steps and with last.pt written.
    """
    with profiler or nullcontext(), closing(steps(session, folder, log, saved)) as taken:
        for batch in taken:
            if profiler is not None:
                profiler.step_taken(batch)


def steps(
    session: Session, folder: RunFolder, log: RunLog, saved: Callable[[], None] = lambda: None
) -> Generator[Batch, None, None]:
    """As `fit`, but yield each batch after its step. What the caller does meanwhile does not count as time of a step."""
    train, state = session.run.train, session.state
    stats = StepStats(session, log)
    checkpoint_due = Alarm(60 * train.checkpoint_minutes, session.world)

    def save_state() -> None:
        session.world.together(state.require_finite)
        state.save(folder.last, session.owner(), session.world)
        checkpoint_due.restart()
        saved()

    with requests_between_steps() as requests:
        # A run that was stopped during a validation has taken the step but lacks the scores.
        if _validation_is_due(session):
            validate(session, folder, log, requests)
            if session.stopped_early:
                save_state()
        if session.stopped_early:  # the run ended here, and was killed before it wrote model.pt
            return
        for batch in stats.timed(_batches(session)):
            set_learning_rates(state.optimizer, session.run.schedule, state.scheduled, train.steps)
            device = session.compute.device
            with (
                out_of_memory_in_words(device, lambda: smaller_batch_in_words(session, take_step)),
                missing_determinism_in_words(device),
                compile_failure_in_words(device),
            ):
                result = take_step(session, batch)
            stats.add(result.terms, result.gradient_norm, batch.names)
            state.step += 1
            with phase("peers"):
                agreed = requests.agree(session.world)
            stats.report_when_due()
            with stats.paused(), phase("between"):
                if _validation_is_due(session) and agreed.stop is None:
                    validate(session, folder, log, requests)
                    agreed = requests.agree(session.world)  # a signal may have ended the validation
                # Every process must call checkpoint_due() at the same steps, so it comes last: the rest is the same on all.
                planned = state.step % train.checkpoint_every == 0 or session.ended
                if planned or agreed.stop or agreed.save or checkpoint_due():
                    requests.save = False
                    save_state()
            if agreed.stop:
                raise _stopped(agreed.stop, session, folder, log)
            with stats.paused():
                yield batch
            if session.stopped_early:
                return


def _validation_is_due(session: Session) -> bool:
    """Whether the run validates after the step just taken, and has not done so yet."""
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
        teacher_outputs=session.teacher_outputs,
        labels=session.task.reads_labels,
        semi=run.semi,
        raters=isinstance(run.labels, RaterLabels),
    )


@dataclass(frozen=True)
class StepResult:
    """Scalars of one step, still on the device: this process's part of each weighted loss term, and the gradients' norm."""

    terms: dict[str, Tensor]
    gradient_norm: Tensor


def take_step(session: Session, batch: Batch) -> StepResult:
    """One optimiser step on this process's share of a global batch.

    Pictures that data.unlabelled mixes in come after the others; every micro-batch gets its part of both.
    """
    state, device, world, train = session.state, session.compute.device, session.world, session.run.train
    with phase("copy"):
        images = batch.images.to(device, non_blocking=True)
        labels = batch.labels.to(device, non_blocking=True)
        outputs = {name: maps.to(device, non_blocking=True) for name, maps in batch.teacher_outputs.items()}
        unlabelled = None if batch.unlabelled is None else batch.unlabelled.to(device, non_blocking=True)
        strong = None if batch.strong is None else batch.strong.to(device)
        ratings = None if batch.ratings is None else batch.ratings.to(device)
    counts = _Counts.of(batch)
    with phase("peers"):
        of_all = _Counts(world.total(counts.table.sum(0, keepdim=True)))
        if session.task.reads_statistics:
            world.align(session.task)
    session.trained.train()
    session.task.begin_step(state.step)
    state.clear_gradients()
    sums: dict[str, Tensor] = {}
    mixed_in = 0 if session.run.data.unlabelled is None else len(images) - len(range(world.rank, train.batch_size, world.size))
    beside = 0 if session.run.data.unlabelled is None else session.run.data.unlabelled.per_batch
    own = len(images) - mixed_in
    parts = mixed_micro_batches(own, train.batch_size, train.accumulate, world.size, mixed_in)
    for part in parts:
        share = counts.share(part, of_all, train.batch_size + beside)
        cached = {name: _rows(maps, part) for name, maps in outputs.items()} or None
        lacking = None if unlabelled is None else _rows(unlabelled, part)
        views = None if strong is None else strong.rows(part[1].start - own, part[1].stop - own)
        # Only the last backward pass averages the gradients over the processes; the earlier ones add to them.
        with nullcontext() if part is parts[-1] else without_averaging(session.trained):
            with session.compute.autocast():
                extra = Extra(cached, lacking, views, None if ratings is None else ratings.rows(part))
                step = session.trained(_rows(images, part), _rows(labels, part), share, extra)
            with phase("backward"):
                # Terms are shares of the global batch, to be summed over the processes; averaging divides by their number.
                scaled: Tensor = state.scaler.scale(step.loss * world.size)
                torch.autograd.backward(scaled)
        sums = {name: value + sums[name] if name in sums else value for name, value in step.terms.items()}
    with phase("optimiser"):
        norm = state.apply_gradients(train.clip_norm)
        state.update_average(session.model, norm)
    return StepResult(sums, norm)


@dataclass(frozen=True)
class _Counts:
    """What each image counts, int64 (B, 3), in main memory: its labelled pixels; the same, or its real pixels if it has no label;
    and 1 if it has a label, else 0."""

    table: Tensor

    @classmethod
    def of(cls, batch: Batch) -> "_Counts":
        labelled = count_valid(batch.labels)
        lacking = torch.zeros_like(labelled) if batch.unlabelled is None else count_marked(batch.unlabelled)
        return cls(torch.stack([labelled, labelled + lacking, (lacking == 0).long()], 1))

    def share(self, part: Sequence[range], of_all: "_Counts", images: int) -> Share:
        """The fraction of the global batch of `images` that some rows are; of_all: the batch's counts, (1, 3)."""
        mine = torch.cat([self.table[rows.start : rows.stop] for rows in part]).sum(0).tolist()
        pixels, seen, labelled = (count / max(1, total) for count, total in zip(mine, of_all.table[0].tolist(), strict=True))
        return Share(pixels, sum(map(len, part)) / images, seen, labelled)


def _rows(tensor: Tensor, part: Sequence[range]) -> Tensor:
    """The rows (R, …) of a tensor (B, …) at one range or several, without a copy for one."""
    rows = [tensor[each.start : each.stop] for each in part if each]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def _stopped(number: signal.Signals, session: Session, folder: RunFolder, log: RunLog) -> StoppedError:
    message = f"stopped by {number.name} after step {session.state.step} of {session.run.train.steps}; last.pt is saved"
    log.note(message)
    return StoppedError(number, message, f"resume with `{session.resume_line(folder.path)}`")
