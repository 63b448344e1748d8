"""The mask stage of MasKD: it learns masks from the teacher before the student's first step. Runs share the result.

    <runs root>/.stages/<key>.pt           the learnt masks
    <runs root>/.stages/<key>.partial.pt   the checkpoint of an unfinished stage

The key is a hash of everything that the masks depend on, so runs with the same teacher, data, views and settings reuse them.
"""

import functools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segctl.data.batches.loader import Batch, training_batches
from segctl.distillers.base import Staged
from segctl.distillers.maskd import MaskStage
from segctl.errors import InputError, SegctlError, StoppedError, first_line
from segctl.files import content_key, write_whole
from segctl.models.external.weights import unpickled
from segctl.models.forward import forward_images
from segctl.models.outputs import Outputs
from segctl.runtime.signals import requests_between_steps
from segctl.schema.run import DistillRun
from segctl.schema.terms.methods import TeacherSpec
from segctl.train.session import Session
from segctl.train.tasks import DistillationTask, cached_outputs, returned_by

STAGES_FOLDER = ".stages"
PUBLISHED_SHARE = 4
"""A stage has a quarter of the run's steps: 10,000 for 40,000 in the paper."""


@dataclass(frozen=True)
class StageFolder:
    """Where stages are stored, and whom to tell about them.

    advance: called with (steps done, steps).  most_steps: stop a stage after this many steps, for a dry run.
    """

    runs_root: Path
    note: Callable[[str], None]
    advance: Callable[[int, int], None]
    resume_line: str
    most_steps: int | None = None

    def file(self, key: str, *, partial: bool = False) -> Path:
        return self.runs_root / STAGES_FOLDER / (f"{key}.partial.pt" if partial else f"{key}.pt")


def learn_stages(session: Session, place: StageFolder) -> None:
    """Give every term that needs a stage its stage, learnt now or by an earlier run. Does nothing for a run without such terms.

    Raises StoppedError on Ctrl-C and SIGTERM; the stage is saved and resumes.
    """
    if not isinstance(session.task, DistillationTask):
        return
    for name, term in session.task.distiller.staged().items():
        stage = _stage_of(term)
        stage.to(session.compute.device)
        steps = place.most_steps or stage.settings.steps or max(1, session.run.train.steps // PUBLISHED_SHARE)
        key = stage_key(session, stage, steps)
        if place.file(key).is_file():
            _read(place.file(key), functools.partial(_fill, stage))
            place.note(f"{name}: masks read from '{place.file(key)}'")
        else:
            _learn(session, _Stage(stage, steps, key), place)
            place.note(f"{name}: masks learnt in {steps} steps, saved in '{place.file(key)}'")
        term.receive(stage)


def _fill(stage: MaskStage, content: dict[str, Any]) -> None:
    stage.load_state_dict(content["stage"])


def stage_key(session: Session, stage: MaskStage, steps: int) -> str:
    """A hash of everything that the learnt masks depend on."""
    assert session.teacher is not None
    view = session.run.data.model_dump(mode="json", exclude={"dataset", "val_split", "workers", "unlabelled"})
    about = {
        "teacher": session.teacher.sha256,
        "data": session.dataset.fingerprint,
        "view": view,
        "batch": session.run.train.batch_size,
        "precision": session.compute.precision,
        "settings": stage.settings.model_dump(mode="json") | {"steps": steps},
        "tokens": list(stage.tokens.shape),
    }
    how = session.run.teacher if isinstance(session.run, DistillRun) else TeacherSpec(preset="none")
    if how.averages_views:
        about["views"] = [list(how.scales), how.flip]
    return content_key(about)[:16]


def _stage_of(term: Staged) -> MaskStage:
    assert isinstance(term.stage, MaskStage)
    return term.stage


@dataclass
class _Stage:
    """A stage and its optimiser while it learns."""

    module: MaskStage
    steps: int
    key: str
    step: int = 0

    def __post_init__(self) -> None:
        settings = self.module.settings
        self.optimizer = torch.optim.SGD(
            self.module.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
        )

    def take_step(self, teacher: Outputs, label: Tensor) -> None:
        """One optimiser step on the teacher's Outputs and labels uint8 (B, H, W)."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.module.settings.lr * (1 - self.step / self.steps) ** self.module.settings.power
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.stack(list(self.module(teacher, label).values())).sum()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.step += 1

    def content(self) -> dict[str, Any]:
        return {"stage": self.module.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}

    def load(self, path: Path) -> None:
        def take(content: dict[str, Any]) -> None:
            self.module.load_state_dict(content["stage"])
            self.optimizer.load_state_dict(content["optimizer"])
            self.step = int(content["step"])

        _read(path, take)


def _learn(session: Session, stage: _Stage, place: StageFolder) -> None:
    partial = place.file(stage.key, partial=True)
    if partial.is_file():
        stage.load(partial)
        place.note(f"resuming the masks after step {stage.step} of {stage.steps}")
    every, began = session.run.train.checkpoint_every, time.perf_counter()
    with requests_between_steps() as requests:
        for batch in _batches(session, stage):
            stage.take_step(_teacher_of(session, batch), batch.labels.to(session.compute.device, non_blocking=True))
            place.advance(stage.step, stage.steps)
            if stage.step % every == 0 or requests.stop or requests.save:
                requests.save = False
                _write(partial, stage.content())
            if requests.stop:
                message = (
                    f"stopped by {requests.stop.name} after step {stage.step} of {stage.steps} of the masks; their state is saved"
                )
                raise StoppedError(requests.stop, message, f"resume with `{place.resume_line}`")
    if not torch.isfinite(stage.module.tokens).all():
        raise SegctlError("the masks contain NaN or infinity", "try a lower stage.lr in the maskd terms of the preset")
    _write(place.file(stage.key), {"stage": stage.module.state_dict(), "seconds": time.perf_counter() - began})
    partial.unlink(missing_ok=True)


def _batches(session: Session, stage: _Stage) -> Iterator[Batch]:
    run = session.run
    return training_batches(
        session.dataset,
        run.data.train_split,
        view=run.data.model_copy(update={"unlabelled": None}),
        batch_size=run.train.batch_size,
        seed=stage.module.settings.seed,
        first_step=stage.step,
        last_step=stage.steps,
        workers=session.workers,
        teacher_outputs=session.teacher_outputs,
    )


@torch.no_grad()
def _teacher_of(session: Session, batch: Batch) -> Outputs:
    assert isinstance(session.task, DistillationTask)
    label, device = batch.labels, session.compute.device
    unlabelled = None if batch.unlabelled is None else batch.unlabelled.to(device, non_blocking=True)
    if batch.teacher_outputs:
        maps = {name: maps.to(device, non_blocking=True) for name, maps in batch.teacher_outputs.items()}
        cached = cached_outputs(maps, label, returned_by(session.task.teacher))
        return Outputs(cached.prediction, cached.size, unlabelled)
    with session.compute.autocast():
        prediction = forward_images(session.task.teacher, batch.images.to(device, non_blocking=True))
    return Outputs(prediction, (label.shape[-2], label.shape[-1]), unlabelled)


def _read(path: Path, take: Callable[[dict[str, Any]], object]) -> None:
    """Give a stage's file to `take`. Raises InputError for a file that is damaged or of something else."""
    hint = "delete that file, then run the same command again: the masks are learnt again"
    content = unpickled(path, hint)
    try:
        take(content)
    except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"'{path}' does not hold the masks of this run: {first_line(error)}", hint) from error


def _write(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, lambda partial: torch.save(content, partial))
