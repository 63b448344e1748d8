"""Everything that a run needs to resume exactly, in one file."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field, InstanceOf
from torch import Tensor, nn

from segctl.errors import InputError, SegctlError, first_line
from segctl.files import as_record, write_whole
from segctl.models.external.weights import unpickled
from segctl.models.moving_average import MovingAverage
from segctl.runtime.world import World

CHECKPOINT_FORMAT = 2


@dataclass
class Best:
    """The best validation so far, by train.select_by in percent; step 0 before the first one."""

    score: float = float("-inf")
    step: int = 0


@dataclass
class Waiting:
    """How early stopping stands: the score to exceed, in percent, and how many validations in a row did not."""

    score: float = float("-inf")
    validations: int = 0

    def add(self, score: float | None, min_gain: float) -> None:
        """Count a validation; an undefined score does not count as better."""
        if score is not None and score > self.score + min_gain:
            self.score, self.validations = score, 0
        else:
            self.validations += 1


@dataclass
class State:
    """What changes from step to step. `step` batches have been learnt from; `validated` is the last step that was validated.

    skipped: how many of these steps changed no weight, because fp16 made a gradient infinite. At first only the device knows it:
    `skips` counts there, and the log's reports bring `skipped` up to date.
    optimizer: trains the network and follows the schedule.  opponents: trains the networks that learn against the student, such
    as a discriminator; None without any.  average: the moving average of the weights, if the run has one.
    teacher: the moving average that teaches the student, if the run has one; it is a part of `task`.
    """

    device: torch.device
    task: nn.Module
    optimizer: torch.optim.Optimizer
    opponents: torch.optim.Optimizer | None
    scaler: torch.amp.GradScaler
    average: MovingAverage | None
    step: int
    validated: int
    best: Best
    waiting: Waiting = field(default_factory=Waiting)
    skipped: int = 0
    skips: Tensor | None = None
    teacher: MovingAverage | None = None

    def clear_gradients(self) -> None:
        """Forget the gradients of the last step."""
        for optimizer in self._optimizers():
            optimizer.zero_grad(set_to_none=True)

    def apply_gradients(self, clip_norm: float | None) -> Tensor:
        """Step every optimiser, and return the norm of the main optimiser's gradients before clipping, a scalar.

        clip_norm: scale these gradients down to this norm if theirs is larger; opponents' gradients are not clipped.
        """
        self.scaler.unscale_(self.optimizer)
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"] if weight.grad is not None]
        norm = nn.utils.clip_grad_norm_(weights, clip_norm) if clip_norm is not None else _norm(weights)
        for optimizer in self._optimizers():
            self.scaler.step(optimizer)
        self.scaler.update()
        if self.scaler.is_enabled():
            skip = ~norm.isfinite()
            self.skips = skip.long() if self.skips is None else self.skips + skip
        return norm

    def update_average(self, network: nn.Module, norm: Tensor) -> None:
        """Update the moving average, if the run has one and the step was not skipped; norm: of the gradients, a scalar."""
        for average in (self.average, self.teacher):
            if average is not None:
                average.update(network, norm.isfinite() if self.scaler.is_enabled() else None)

    def count_skips(self) -> int:
        """Bring `skipped` up to date, and return by how much it has grown. Waits for the device."""
        before = self.skipped
        if self.skips is not None:
            self.skipped = int(self.skips)
        return self.skipped - before

    @property
    def scheduled(self) -> int:
        """The step of the schedule: a skipped step is not a taken one. Counts the skips that the log has reported."""
        return self.step - self.skipped

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.optimizer] if self.opponents is None else [self.optimizer, self.opponents]

    def save(self, path: Path, about: dict[str, Any], world: World) -> None:
        """Write a checkpoint from the main process. Every process must call this, because the file holds all random states.

        about: plain values that say which run, data and teacher the checkpoint belongs to.
        """
        random_states = world.gather(_random_state(self.device))
        world.on_main(lambda: self._write(path, about, random_states))

    def _write(self, path: Path, about: dict[str, Any], random_states: list[dict[str, Tensor]]) -> None:
        """random_states: for each rank the states of its generators, uint8 (n,), by kind of device."""
        content = {
            "format": CHECKPOINT_FORMAT,
            "about": about,
            "step": self.step,
            "validated": self.validated,
            "best": {"score": self.best.score, "step": self.best.step},
            "waiting": {"score": self.waiting.score, "validations": self.waiting.validations},
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "opponents": self.opponents.state_dict() if self.opponents is not None else None,
            "scaler": self.scaler.state_dict(),
            "skipped": self.skipped,
            "skips": 0 if self.skips is None else int(self.skips),
            "average": self.average.state_dict() if self.average is not None else None,
            "rng": random_states,
        }
        write_whole(path, lambda partial: torch.save(content, partial))

    def require_finite(self) -> None:
        """Raise SegctlError if a weight is NaN or infinite: such a state must not overwrite a good checkpoint.

        Statistics of batch norm count as weights: a model file that holds a NaN in them is refused when it is read.
        """
        weights = [*self.task.named_parameters(), *self._statistics()]
        broken = [name for name, weight in weights if not torch.isfinite(weight).all()]
        if broken:
            raise SegctlError(
                f"{len(broken)} weights are NaN or infinite after step {self.step}, the first is {broken[0]}",
                "last.pt holds an earlier state: resume with a lower --set optim.lr or --set train.precision=fp32",
            )

    def _statistics(self) -> list[tuple[str, Tensor]]:
        """The network's buffers of real numbers by name, such as batch norm's means."""
        network = getattr(self.task, "model", self.task)
        return [(f"model.{name}", buffer) for name, buffer in network.named_buffers() if buffer.is_floating_point()]

    def load(self, content: "Checkpoint", path: Path, world: World) -> None:
        """Load a checkpoint that `read_checkpoint` read from `path`, random states included.

        With another number of processes now, the random states are not loaded.  Raises InputError if the checkpoint does not fit
        the networks and optimisers.
        """
        try:
            self.task.load_state_dict(content.task)
            for optimizer, state in zip(self._optimizers(), (content.optimizer, content.opponents or {}), strict=False):
                fused = [group.get("fused") for group in optimizer.param_groups]
                optimizer.load_state_dict(state)
                for group, kept in zip(optimizer.param_groups, fused, strict=True):
                    if "fused" in group:  # timm's optimisers have no such choice
                        group["fused"] = kept  # this start's device and precision decide, not those of the start that saved
            self.scaler.load_state_dict(content.scaler)
            self.skipped = content.skipped
            self.skips = torch.tensor(content.skips, device=self.device) if content.skips else None
            if self.average is not None:
                self.average.load_state_dict(content.average or {})
            if len(content.rng) == world.size:
                _set_random_state(content.rng[world.rank], self.device)
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise InputError(f"'{path}' does not fit this run: {first_line(error)}", START_AGAIN) from error
        self.step, self.validated = content.step, content.validated
        self.best = Best(content.best.score, content.best.step)
        self.waiting = Waiting(content.waiting.score, content.waiting.validations)


def _norm(weights: list[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, a scalar, computed as `clip_grad_norm_` does."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


START_AGAIN = "delete that file and resume: the run then starts again at its first step"


class _BestRecord(BaseModel):
    score: float
    step: int = Field(ge=0)


class _WaitingRecord(BaseModel):
    score: float = float("-inf")
    validations: int = Field(0, ge=0)


class Owner(BaseModel):
    """Which run, data and teacher a checkpoint belongs to.

    settings: the resolved run as JSON.  Checkpoints of earlier versions have none.
    """

    run: str
    dataset: str
    teacher: str | None
    settings: dict[str, Any] | None = None


class Checkpoint(BaseModel):
    """The content of a checkpoint file; InstanceOf leaves state dicts as torch made them, with their metadata."""

    format: int
    about: Owner
    step: int = Field(ge=0)
    validated: int = Field(ge=0)
    best: _BestRecord
    waiting: _WaitingRecord = _WaitingRecord()  # checkpoints of earlier versions have none
    task: InstanceOf[dict[str, Tensor]]
    optimizer: InstanceOf[dict[str, Any]]
    opponents: InstanceOf[dict[str, Any]] | None
    scaler: InstanceOf[dict[str, Any]]
    skipped: int = Field(0, ge=0)
    """Skipped steps that the log has reported. Earlier versions did not count them."""
    skips: int = Field(0, ge=0)
    """All skipped steps."""
    average: InstanceOf[dict[str, Tensor]] | None
    rng: list[InstanceOf[dict[str, Tensor]]]


def read_checkpoint(path: Path) -> Checkpoint:
    """The content of a checkpoint.

    Raises InputError if the file is missing, incomplete, changed after it was written, or not a checkpoint of segctl.
    """
    if not path.is_file():
        raise InputError(f"there is no checkpoint at '{path}'", "start the run without --resume")
    content = unpickled(path, START_AGAIN)
    if not isinstance(content, dict) or content.get("format") != CHECKPOINT_FORMAT:
        raise InputError(f"'{path}' is not a checkpoint of this version of segctl", START_AGAIN)
    return as_record(content, Checkpoint, f"'{path}'", START_AGAIN)


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the random generators that a run draws from: the CPU's and its own device's."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "mps":
        return state | {"mps": torch.mps.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def _set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    """state: a generator's state for each kind of device, uint8 (n,), as `_random_state` gives it."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
    if device.type == "mps" and "mps" in state:
        torch.mps.set_rng_state(state["mps"])
