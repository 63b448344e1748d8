"""The optimiser of a run."""

from typing import Annotated, Literal

from pydantic import Field

from segctl.schema.spec import Spec
from segctl.schema.terms.loss_terms import NonNegative

Fraction = Annotated[float, Field(ge=0, lt=1)]


class OptimiserSpec(Spec):
    """What all optimisers share."""

    lr: float = Field(gt=0, le=1e6)
    """Peak learning rate of the backbone."""
    head_lr_factor: float = Field(1.0, gt=0, le=1e6)
    """Learning rate of everything outside the backbone, as a multiple of `lr`."""
    weight_decay: NonNegative = 0.0
    """Weight decay."""
    decay_norm_and_bias: bool = True
    """Whether 1-D parameters (norm layers, biases) decay too."""
    layer_decay: float | None = Field(None, gt=0, le=1)
    """For transformers: each block of the backbone learns at this fraction of the rate of the block after it (arXiv:2106.08254).
    null: all at one rate."""


class SGDSpec(OptimiserSpec):
    """Stochastic gradient descent with momentum."""

    kind: Literal["sgd"] = "sgd"
    momentum: Fraction = 0.9
    """Momentum, without Nesterov."""


class AdamWSpec(OptimiserSpec):
    """AdamW."""

    kind: Literal["adamw"] = "adamw"
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay rates of the two moments."""


class AdamSpec(OptimiserSpec):
    """Adam; its weight decay is added to the gradient."""

    kind: Literal["adam"] = "adam"
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay rates of the two moments."""


class TimmSpec(OptimiserSpec):
    """An optimiser of timm.optim by its name there, such as lamb, lion, adopt or nadamw; null leaves an option as timm has it."""

    kind: Literal["timm"] = "timm"
    name: str = Field(min_length=1)
    """The optimiser's name in timm."""
    momentum: Fraction | None = None
    """Momentum, for an optimiser that has it."""
    betas: Annotated[tuple[Fraction, ...], Field(min_length=2, max_length=3)] | None = None
    """Decay rates of the moments, for an optimiser that has them."""
    eps: float | None = Field(None, gt=0, lt=1)
    """The term that prevents a division by zero, for an optimiser that has it."""


OptimSpec = Annotated[SGDSpec | AdamWSpec | AdamSpec | TimmSpec, Field(discriminator="kind")]
