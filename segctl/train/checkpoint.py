"""Everything a run needs to go on as if nothing had happened, in one file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from segctl.errors import InputError, SegctlError, first_line
from segctl.files import write_whole
from segctl.runtime.world import World

FORMAT = 2


@dataclass
class Best:
    """The best validation so far, by mIoU_D in percent; step 0 where there was none."""

    score: float = float("-inf")
    step: int = 0


@dataclass
class State:
    """The moving parts of a run between two steps. `step` steps have been taken; `validated` is the last step scored.

    `optimizer` trains the student and follows the schedule; `opponents`, where there is one, trains what learns against it.
    """

    device: torch.device
    task: nn.Module
    optimizer: torch.optim.Optimizer
    opponents: torch.optim.Optimizer | None
    scaler: torch.amp.GradScaler
    average: AveragedModel | None
    step: int
    validated: int
    best: Best

    def clear_gradients(self) -> None:
        for optimizer in self._optimizers():
            optimizer.zero_grad(set_to_none=True)

    def apply_gradients(self, clip_norm: float | None) -> Tensor:
        """One step of every optimiser, from the gradients of one backward pass; the norm of all that the student's has.

        A norm above clip_norm is brought down to it; an opponent's gradients are left alone.
        """
        self.scaler.unscale_(self.optimizer)
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"] if weight.grad is not None]
        norm = nn.utils.clip_grad_norm_(weights, clip_norm) if clip_norm is not None else _norm(weights)
        for optimizer in self._optimizers():
            self.scaler.step(optimizer)
        self.scaler.update()
        return norm

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.optimizer] if self.opponents is None else [self.optimizer, self.opponents]

    def save(self, path: Path, about: dict[str, Any], world: World) -> None:
        """Write a checkpoint whole, by the main process; `about` (plain values) says which run, data and teacher it belongs to.

        Every process calls it, because its random state is part of the run.
        """
        random_states = world.gather(_random_state(self.device))
        world.on_main(lambda: self._write(path, about, random_states))

    def _write(self, path: Path, about: dict[str, Any], random_states: list[dict[str, Tensor]]) -> None:
        content = {
            "format": FORMAT,
            "about": about,
            "step": self.step,
            "validated": self.validated,
            "best": {"score": self.best.score, "step": self.best.step},
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "opponents": self.opponents.state_dict() if self.opponents is not None else None,
            "scaler": self.scaler.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "rng": random_states,
        }
        write_whole(path, lambda partial: torch.save(content, partial))

    def require_finite(self) -> None:
        """Raise SegctlError where a weight is no longer a number: such a state is not worth keeping."""
        broken = [name for name, weight in self.task.named_parameters() if not torch.isfinite(weight).all()]
        if broken:
            raise SegctlError(
                f"{len(broken)} weights are no longer numbers after step {self.step}, the first is {broken[0]}",
                "last.pt holds an earlier state; try a lower --set optim.lr or --set train.precision=fp32",
            )

    def load(self, path: Path, world: World) -> dict[str, Any]:
        """Put a checkpoint's content into the parts, random state included, and return its `about`. Raises InputError.

        `about` gets "processes", how many wrote it: where they were not as many, random states start anew.
        """
        content = read_checkpoint(path)
        self.task.load_state_dict(content["task"])
        self.optimizer.load_state_dict(content["optimizer"])
        if self.opponents is not None:
            self.opponents.load_state_dict(content["opponents"])
        self.scaler.load_state_dict(content["scaler"])
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        self.step, self.validated = content["step"], content["validated"]
        self.best = Best(**content["best"])
        if len(content["rng"]) == world.size:
            _set_random_state(content["rng"][world.rank], self.device)
        about: dict[str, Any] = content["about"]
        return about | {"processes": len(content["rng"])}


def _norm(weights: list[nn.Parameter]) -> Tensor:
    """The norm of all gradients together, as `clip_grad_norm_` measures it."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint. Raises InputError where the file is missing, cut short or not ours."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"there is no checkpoint at '{path}'", "start the run without --resume") from error
    except Exception as error:  # torch raises many types for a broken file
        raise InputError(
            f"'{path}' is not a readable checkpoint: {first_line(error)}", "start the run again without --resume"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"'{path}' is not a checkpoint that this segctl wrote", "start the run again without --resume")
    return content


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """The state of the generators that a run draws from: the CPU's and its own device's."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def _set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
