"""The training loop of a run: steps, batch, precision, validation and checkpoints."""

from typing import Literal

from pydantic import Field

from segctl.schema.spec import Spec


class TrainSpec(Spec):
    """The loop."""

    steps: int = Field(ge=1)
    """Optimiser steps."""
    batch_size: int = Field(ge=1)
    """Images per optimiser step, over all processes and accumulated micro-batches together."""
    accumulate: int = Field(1, ge=1)
    """Micro-batches per optimiser step; must divide the batch."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the networks; losses always sum in float32. `auto` takes bf16 where the device has it, else fp32."""
    activation_checkpointing: bool = False
    """Whether the backbone's blocks keep nothing but their inputs and are computed again in the backward pass: less memory, the
    same gradients, more time."""
    compile: bool = False
    """Whether torch.compile makes one program each of the student and the teacher, fusing what lies between convolutions: the
    first step takes minutes, and last digits are others. For GPUs; a CPU gains nothing. Wants a C++ compiler, on a GPU Triton."""
    seed: int = Field(0, ge=0)
    """Seed of weights, order and augmentation."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of an exponential moving average of the weights, which is then what is validated and shipped; null for none."""
    clip_norm: float | None = Field(None, gt=0)
    """Largest norm of all gradients together; longer ones are shortened to it. null for no limit."""
    validate_every: int = Field(ge=1)
    """Steps between validations; the last step is always validated."""
    checkpoint_every: int = Field(ge=1)
    """Steps between checkpoints; the last step always writes one."""
    checkpoint_minutes: float = Field(20.0, gt=0)
    """A checkpoint is written after so many minutes too, however slow the steps."""
    deterministic: bool = False
    """Only algorithms that give the same bits every time. A CPU has them anyway; a GPU becomes slower."""
    select: Literal["last", "best"] = "last"
    """Which weights `model.pt` holds: those of the last step, or of the best validation by mIoU_D."""
