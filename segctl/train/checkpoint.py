"""Everything that a run needs to resume exactly, in one file."""

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
    """The best validation so far, by mIoU_D in percent; step 0 before the first one."""

    score: float = float("-inf")
    step: int = 0


@dataclass
class State:
    """What changes from step to step. `step` steps have been taken; `validated` is the last step that was validated.

    optimizer: trains the network and follows the schedule.  opponents: trains the networks that learn against the student, such
    as a discriminator; None without any.  average: the moving average of the weights, if the run has one.
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
        return norm

    def _optimizers(self) -> list[torch.optim.Optimizer]:
        return [self.optimizer] if self.opponents is None else [self.optimizer, self.opponents]

    def save(self, path: Path, about: dict[str, Any], world: World) -> None:
        """Write a checkpoint from the main process. Every process must call this, because the file holds all random states.

        about: plain values that say which run, data and teacher the checkpoint belongs to.
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
        """Raise SegctlError if a weight is NaN or infinite: such a state must not overwrite a good checkpoint."""
        broken = [name for name, weight in self.task.named_parameters() if not torch.isfinite(weight).all()]
        if broken:
            raise SegctlError(
                f"{len(broken)} weights are NaN or infinite after step {self.step}, the first is {broken[0]}",
                "last.pt holds an earlier state: resume with a lower --set optim.lr or --set train.precision=fp32",
            )

    def load(self, path: Path, world: World) -> dict[str, Any]:
        """Load a checkpoint, random states included, and return its `about` and how many "processes" wrote it.

        With another number of processes now, the random states are not loaded.  Raises InputError for an unreadable file.
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
    """The norm of all gradients together, a scalar, computed as `clip_grad_norm_` does."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    if not gradients:
        return torch.zeros(())
    norm: Tensor = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    return norm


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint. Raises InputError if the file is missing, incomplete or not a checkpoint of segctl."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"there is no checkpoint at '{path}'", "start the run without --resume") from error
    except Exception as error:  # torch raises many types for a damaged file
        raise InputError(
            f"cannot read the checkpoint '{path}': {first_line(error)}", "start a new run without --resume"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise InputError(f"'{path}' is not a checkpoint of this version of segctl", "start a new run without --resume")
    return content


def _random_state(device: torch.device) -> dict[str, Tensor]:
    """The states of the random generators that a run draws from: the CPU's and its own device's."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def _set_random_state(state: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
