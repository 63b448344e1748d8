"""The training loop of a run: steps, batch, precision, validation and checkpoints."""

from typing import Literal

from pydantic import Field

from segctl.schema.spec import Spec


class TrainSpec(Spec):
    """The loop."""

    steps: int = Field(ge=1, le=10**9)
    """Optimiser steps."""
    batch_size: int = Field(ge=1, le=2**20)
    """Images per optimiser step, over all processes and accumulated micro-batches together."""
    accumulate: int = Field(1, ge=1, le=2**20)
    """Micro-batches per optimiser step; must divide the batch."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the networks; losses always sum in float32. `auto` uses bf16 where the device has it, else fp32."""
    activation_checkpointing: bool = False
    """Store only the inputs of the backbone's blocks and recompute the rest in the backward pass: less memory, more time, same
    gradients."""
    compile: bool = False
    """Compile student and teacher with torch.compile, which fuses the operations between convolutions. The first step takes
    minutes, and the last digits of results change. For GPUs: a CPU gains nothing. Needs a C++ compiler, and Triton on a GPU."""
    seed: int = Field(0, ge=0, le=2**32 - 1)
    """Seed of the initial weights, the order of samples and the augmentation."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of an exponential moving average (EMA) of the weights; the run then validates and ships the average. null: none."""
    clip_norm: float | None = Field(None, gt=0, le=1e9)
    """Largest L2 norm of all gradients together; larger gradients are scaled down to it. null: no limit."""
    validate_every: int = Field(ge=1, le=10**9)
    """Steps between validations; the last step always validates."""
    checkpoint_every: int = Field(ge=1, le=10**9)
    """Steps between checkpoints; the last step always writes one."""
    checkpoint_minutes: float = Field(20.0, gt=0, le=1e6)
    """Also write a checkpoint after this many minutes, however slow the steps are."""
    deterministic: bool = False
    """Use only algorithms that give the same bits every time. A CPU does so anyway; a GPU becomes slower."""
    select: Literal["last", "best"] = "last"
    """The weights that the run ships: those of the last step, or of the validation with the highest mIoU_D."""
