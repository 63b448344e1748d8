"""Try a run without keeping anything, so that what would fail after hours fails now."""

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
from segctl.runtime.memory import out_of_memory_in_words, peak_memory_mb
from segctl.runtime.phases import phase
from segctl.runtime.world import World
from segctl.schema.labels import RaterLabels
from segctl.schema.run import PretrainRun
from segctl.train.auto.by_memory import smaller_batch_in_words, with_fitting_batch
from segctl.train.build import build_session
from segctl.train.checkpoint import read_checkpoint
from segctl.train.loop import take_step
from segctl.train.mask_stage import StageFolder, learn_stages
from segctl.train.pretrain.probe import fit_probe
from segctl.train.profile.profiler import Profiler, show_profile
from segctl.train.profile.summary import TRIAL
from segctl.train.run_log import Watch
from segctl.train.session import Request, Session
from segctl.train.start import score_teacher
from segctl.train.step_memory import memory_of_session

WORTH_COUNTING = 1 << 18
"""Fewest pixels in a batch for which a GPU's memory is counted, which takes seconds: fewer fit every GPU."""


def dry_run(request: Request, watch: Watch) -> dict[str, float]:
    """One training step, one validation image, one checkpoint saved and loaded; keep nothing.

    Several processes take two steps, and request.profile takes a few more. Returns the loss, mIoU_D of the image in percent,
    seconds of the step, MB of checkpoint and peak memory and, for a run with a teacher, the teacher's mIoU_D. Without a GPU also
    the GiB that a GPU would need for a batch of usual size, counted from the shapes of a step's tensors.
    """
    session = build_session(with_fitting_batch(request, take_step))
    for line in session.decisions():
        watch.note(line)
    session.teacher_cache = None  # nothing is written, so the teacher runs in the step
    trial = score_teacher(session, watch)
    run, found = session.run, {}
    if trial is not None:
        found["teacher_mIoU_D"] = trial.scores["mIoU_D"] or 0.0
    # Processes compare at the beginning of a step whether all weights got a gradient in the one before, so they need a second.
    further = 0 if request.world.size == 1 else 1
    steps = 1 + further + (TRIAL.total if request.profile else 0)
    batches = training_batches(
        session.dataset, run.data.train_split, view=run.data, batch_size=run.train.batch_size, seed=run.train.seed,
        first_step=0, last_step=steps, workers=session.workers, rank=request.world.rank, size=request.world.size,
        labels=session.task.reads_labels, semi=run.semi, raters=isinstance(run.labels, RaterLabels),
    )  # fmt: skip
    batch = next(batches)
    with tempfile.TemporaryDirectory() as folder:
        learn_stages(
            session,
            StageFolder(
                Path(folder),
                note=lambda text: None,
                advance=lambda done, total: watch.advance("learning masks", done, total),
                resume_line="",
                most_steps=1,
            ),
        )
    began = time.perf_counter()
    with out_of_memory_in_words(session.compute.device, lambda: smaller_batch_in_words(session, take_step)):
        terms = take_step(session, batch).terms
    found["loss"] = float(sum(float(value) for value in terms.values()))
    found["step_s"] = time.perf_counter() - began
    for _ in range(further):
        take_step(session, next(batches))
    if request.profile:
        _profile_steps(session, batches, watch)
    if not isinstance(run, PretrainRun) or fit_probe(session, session.evaluated_model, lambda done, total: None):
        names = session.dataset.names(run.data.val_split)[:1]
        counted = count_images(session.evaluated_model, session.dataset, names, Scoring(run.evaluate, session.compute))
        found["validation_mIoU_D"] = score(counted.table, binary=session.dataset.classes.binary)["mIoU_D"] or 0.0
    found["checkpoint_mb"] = _round_trip(session)
    found["peak_memory_mb"] = peak_memory_mb(session.compute.device)
    height, width = run.data.crop
    if session.compute.device.type != "cuda" and run.train.batch_size * height * width >= WORTH_COUNTING:
        there = request.run.train.precision  # GPUs choose bf16
        memory = memory_of_session(session, "bf16" if there == "auto" else there)
        if memory is not None:
            found["gpu_memory_gib"] = memory.peak
    return found


def _profile_steps(session: Session, batches: Iterator[Batch], watch: Watch) -> None:
    """Take some more steps and show their profile."""
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
    """Save a checkpoint, set all weights to 0, load it, and check that every weight is back; the file's size in MB."""
    session.state.require_finite()  # a NaN differs from itself, so the comparison below would blame the file
    weights = session.task.state_dict()
    before = {name: tensor.clone() for name, tensor in weights.items()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "last.pt"
        session.state.save(path, session.owner(), World())
        size = path.stat().st_size / 1e6
        for tensor in weights.values():
            tensor.zero_()
        session.state.load(read_checkpoint(path), path, World())
    if not all(torch.equal(tensor, before[name]) for name, tensor in session.task.state_dict().items()):
        raise SegctlError(
            "loading a checkpoint did not give back the weights that were saved", "this is a fault of segctl; please report it"
        )
    return size
