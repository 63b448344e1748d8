"""Try a run without keeping anything: what would fail hours in fails now."""

import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import torch

from segctl.data.batches.loader import Batch, training_batches
from segctl.errors import SegctlError
from segctl.evaluate.count_images import Scoring, count_images
from segctl.metrics.scores import score
from segctl.runtime.device import peak_memory_mb
from segctl.runtime.phases import phase
from segctl.runtime.world import World
from segctl.train.loop import take_step
from segctl.train.mask_stage import Place, learn_stages
from segctl.train.profile.profiler import Profiler, show_profile
from segctl.train.profile.summary import TRIAL
from segctl.train.run_log import Watch
from segctl.train.session import Request, Session, prepare_session
from segctl.train.start import stage_progress, try_teacher_of


def dry_run(request: Request, watch: Watch) -> dict[str, float]:
    """One training step (with request.profile some more), one validation image, one checkpoint round trip; nothing is kept.

    Returns loss, mIoU_D of that image, seconds of the step, MB of peak memory and, with a teacher, its mIoU_D.
    """
    session = prepare_session(request)
    for line in session.decisions():
        watch.note(line)
    session.answers = None  # nothing is kept, so the teacher answers now
    trial = try_teacher_of(session, watch)
    run, found = session.run, {}
    if trial is not None:
        found["teacher_mIoU_D"] = trial.scores["mIoU_D"] or 0.0
    steps = 1 + TRIAL.total if request.profile else 1
    batches = training_batches(
        session.dataset, run.data.train_split, view=run.data, batch_size=run.train.batch_size, seed=run.train.seed,
        first_step=0, last_step=steps, workers=session.workers, rank=request.world.rank, size=request.world.size,
    )  # fmt: skip
    batch = next(batches)
    _try_stages(session, watch)
    began = time.perf_counter()
    terms = take_step(session, batch).terms
    found["loss"] = float(sum(float(value) for value in terms.values()))
    found["step_s"] = time.perf_counter() - began
    if request.profile:
        _profile_trial(session, batches, watch)
    names = session.dataset.names(run.data.val_split)[:1]
    counted = count_images(session.evaluated_model, session.dataset, names, Scoring(run.evaluate, session.compute))
    found["validation_mIoU_D"] = score(counted.table, binary=session.dataset.classes.binary)["mIoU_D"] or 0.0
    found["checkpoint_mb"] = _round_trip(session)
    found["peak_memory_mb"] = peak_memory_mb(session.compute.device)
    return found


def _profile_trial(session: Session, batches: Iterator[Batch], watch: Watch) -> None:
    """Look at some more steps, and tell."""
    profiler = session.world.on_main(
        lambda: Profiler(session, TRIAL, lambda profile, trace: show_profile(profile, watch), watch.note)
    )
    with profiler or nullcontext():
        for _ in range(TRIAL.total):
            with phase("data"):
                batch = next(batches)
            take_step(session, batch)
            if profiler is not None:
                profiler.step_taken(batch)


def _round_trip(session: Session) -> float:
    """Save the state, spoil it, load it back, and make sure that every weight came back; the file's size in MB."""
    weights = session.task.state_dict()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.pt"
        session.state.save(path, session.owner(), World())
        size = path.stat().st_size / 1e6
        for tensor in weights.values():
            tensor.zero_()
        session.state.load(path, World())
    if not all(torch.equal(tensor, before[name]) for name, tensor in session.task.state_dict().items()):
        raise SegctlError(
            "a checkpoint did not give back the weights it was given", "this is a fault of segctl; please report it"
        )
    return size


def _try_stages(session: Session, watch: Watch) -> None:
    """One step of what must be learnt first, kept nowhere."""
    with tempfile.TemporaryDirectory() as folder:
        learn_stages(session, Place(Path(folder), lambda text: None, stage_progress(watch), "", most_steps=1))
