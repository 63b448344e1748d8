"""What a method learns before the student's first step: learnt once, kept beside the runs, and taken up where it stopped.

    <runs root>/.stages/<key>.pt           what was learnt
    <runs root>/.stages/<key>.partial.pt   a stage under way

The key is a hash of all that the result depends on, so any run with the same teacher, data, views and settings finds it.
"""

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
from segctl.errors import SegctlError, StoppedError
from segctl.files import content_key, write_whole
from segctl.models.outputs import Outputs
from segctl.runtime.signals import requests_between_steps
from segctl.train.session import Session
from segctl.train.tasks import DistillationTask, kept_outputs

FOLDER = ".stages"
PUBLISHED_SHARE = 4
"""A stage takes one step for so many of the run's: the published 10,000 beside 40,000."""

Note = Callable[[str], None]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Place:
    """Where stages are kept, and who is told."""

    runs_root: Path
    note: Note
    progress: Progress
    resume_line: str
    most_steps: int | None = None
    """For a trial: stop a stage after so many steps."""

    def file(self, key: str, *, partial: bool = False) -> Path:
        return self.runs_root / FOLDER / (f"{key}.partial.pt" if partial else f"{key}.pt")


def learn_stages(session: Session, place: Place) -> None:
    """Give every term that wants one its stage, learnt now or by an earlier run.

    Raises StoppedError on Ctrl-C and SIGTERM, with the stage's state written.
    """
    if not isinstance(session.task, DistillationTask):
        return
    for name, term in session.task.distiller.staged().items():
        stage = _stage_of(term)
        stage.to(session.compute.device)
        steps = place.most_steps or stage.settings.steps or max(1, session.run.train.steps // PUBLISHED_SHARE)
        key = stage_key(session, stage, steps)
        if place.file(key).is_file():
            stage.load_state_dict(torch.load(place.file(key), map_location="cpu", weights_only=True)["stage"])
            place.note(f"{name}: masks learnt before, from '{place.file(key)}'")
        else:
            _learn(session, _Stage(stage, steps, key), place)
            place.note(f"{name}: masks learnt in {steps} steps, kept in '{place.file(key)}'")
        term.receive(stage)


def stage_key(session: Session, stage: MaskStage, steps: int) -> str:
    """A hash of everything that what the stage learns depends on."""
    assert session.teacher is not None
    view = session.run.data.model_dump(mode="json", exclude={"dataset", "val_split", "workers"})
    about = {
        "teacher": session.teacher.sha256,
        "data": session.dataset.fingerprint,
        "view": view,
        "batch": session.run.train.batch_size,
        "precision": session.compute.precision,
        "settings": stage.settings.model_dump(mode="json") | {"steps": steps},
        "tokens": list(stage.tokens.shape),
    }
    return content_key(about)[:16]


def _stage_of(term: Staged) -> MaskStage:
    assert isinstance(term.stage, MaskStage)
    return term.stage


@dataclass
class _Stage:
    """A stage under way."""

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
        for group in self.optimizer.param_groups:
            group["lr"] = self.module.settings.lr * (1 - self.step / self.steps) ** self.module.settings.power
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.stack(list(self.module(teacher, label).values())).sum()
        torch.autograd.backward(loss)
        self.optimizer.step()
        self.step += 1

    def content(self) -> dict[str, Any]:
        return {"stage": self.module.state_dict(), "optimizer": self.optimizer.state_dict(), "step": self.step}

    def take_up(self, path: Path) -> None:
        content = torch.load(path, map_location="cpu", weights_only=True)
        self.module.load_state_dict(content["stage"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.step = content["step"]


def _learn(session: Session, stage: _Stage, place: Place) -> None:
    partial = place.file(stage.key, partial=True)
    if partial.is_file():
        stage.take_up(partial)
        place.note(f"going on with the masks after step {stage.step} of {stage.steps}")
    every, began = session.run.train.checkpoint_every, time.perf_counter()
    with requests_between_steps() as requests:
        for batch in _batches(session, stage):
            stage.take_step(_teach(session, batch), batch.labels.to(session.compute.device))
            place.progress(stage.step, stage.steps)
            if stage.step % every == 0 or requests.stop or requests.save:
                requests.save = False
                _keep(partial, stage.content())
            if requests.stop:
                message = f"stopped by {requests.stop.name} after step {stage.step} of {stage.steps} of the masks; it is saved"
                raise StoppedError(requests.stop, message, f"go on with `{place.resume_line}`")
    if not torch.isfinite(stage.module.tokens).all():
        raise SegctlError("the masks are no longer numbers", "try a lower stage.lr in the maskd terms of the preset")
    _keep(place.file(stage.key), {"stage": stage.module.state_dict(), "seconds": time.perf_counter() - began})
    partial.unlink(missing_ok=True)


def _batches(session: Session, stage: _Stage) -> Iterator[Batch]:
    run = session.run
    return training_batches(
        session.dataset,
        run.data.train_split,
        view=run.data,
        batch_size=run.train.batch_size,
        seed=stage.module.settings.seed,
        first_step=stage.step,
        last_step=stage.steps,
        workers=session.workers,
        answers=session.answers,
    )


@torch.no_grad()
def _teach(session: Session, batch: Batch) -> Outputs:
    assert isinstance(session.task, DistillationTask)
    teacher, label, device = session.task.teacher, batch.labels, session.compute.device
    if batch.answers:
        return kept_outputs({name: maps.to(device) for name, maps in batch.answers.items()}, label)
    with session.compute.autocast():
        prediction = teacher(teacher.normalize(batch.images.to(device)))
    return Outputs(prediction, (label.shape[-2], label.shape[-1]))


def _keep(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lambda partial: torch.save(content, partial))
