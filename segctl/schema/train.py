"""The training loop of a run: steps, batch, precision, validation and checkpoints."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError, field_validator
from pydantic_core import PydanticCustomError

from segctl.schema.spec import Spec, auto_or_value
from segctl.schema.terms.loss_terms import NonNegative

_BOOL = TypeAdapter(bool)

ScoreName = Annotated[str, Field(min_length=1)]
"""A score of the validation: a name in scores.json, such as mIoU_D, or one class's, such as IoU_D.person."""

if TYPE_CHECKING:  # A run that trains has both: `segctl.train.auto` puts numbers in place of what a preset leaves open.
    Steps = int
    Accumulate = int
else:
    Steps = Annotated[int, Field(ge=1, le=10**9)] | None
    Accumulate = Annotated[
        Annotated[int, Field(ge=1, le=2**20), Tag("value")] | Annotated[Literal["auto"], Tag("auto")],
        Discriminator(auto_or_value),
    ]


class EarlyStopSpec(Spec):
    """The end of a run that no longer gets better."""

    patience: int = Field(ge=1, le=10**9)
    """The run ends after this many validations in a row without a better score."""
    score: ScoreName | None = None
    """The score that must rise; null: that of `select_by`."""
    min_gain: NonNegative = 0.0
    """How many points above the best score so far count as better."""


class TrainSpec(Spec):
    """The loop."""

    steps: Steps = None  # type: ignore[assignment]
    """Optimiser steps. null: as many as `epochs` says."""
    epochs: float | None = Field(None, gt=0, le=10**6)
    """Passes over the training images, instead of `steps`; a new run converts them to steps."""
    batch_size: int = Field(ge=1, le=2**20)
    """Images per optimiser step, over all processes and accumulated micro-batches together."""
    accumulate: Accumulate = 1
    """Micro-batches per optimiser step; must divide the batch. `auto`: as few as fit into memory, tried once as a run starts."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the networks; losses always sum in float32. `auto` uses bf16 where the device has it, else fp32."""
    activation_checkpointing: bool = False
    """Store only the inputs of the backbone's blocks and recompute the rest in the backward pass: less memory, more time, same
    gradients."""
    compile: bool | Literal["reduce-overhead"] = False
    """Compile student and teacher with torch.compile, which fuses the operations between convolutions. The first step takes
    minutes, and the last digits of results change. For GPUs: a CPU gains nothing. Needs a C++ compiler, and Triton on a GPU.
    `reduce-overhead` records each pass as a CUDA graph as well, so that a GPU does not wait for Python to start its kernels; it
    takes more memory, and one GPU."""
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
    """The weights that the run ships: those of the last step, or of the validation with the highest score of `select_by`."""
    select_by: ScoreName = "mIoU_D"
    """The score that tells which validation is best: a name in scores.json, or one class's, such as IoU_D.person."""
    early_stop: EarlyStopSpec | None = None
    """When to end the run before its last step. null: never."""

    @property
    def watched(self) -> str:
        """The score that early stopping watches."""
        return self.select_by if self.early_stop is None or self.early_stop.score is None else self.early_stop.score

    @field_validator("batch_size", mode="before")
    @classmethod
    def _images_in_a_batch(cls, value: Any) -> Any:
        if value == "auto":
            raise PydanticCustomError(
                "no_batch", "wanted the batch that the recipe is made for; train.accumulate auto divides it so that it fits"
            )
        return value

    @field_validator("compile", mode="before")
    @classmethod
    def _one_of_three(cls, value: Any) -> Any:
        if value == "reduce-overhead":
            return value
        try:
            return _BOOL.validate_python(value)
        except ValidationError as error:
            raise PydanticCustomError("no_form", "wanted true, false or reduce-overhead") from error
