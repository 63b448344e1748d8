"""The optimiser of a run."""

from typing import Annotated, Literal

from pydantic import Field

from segctl.schema.loss_terms import NonNegative
from segctl.schema.spec import Spec

Fraction = Annotated[float, Field(ge=0, lt=1)]


class OptimiserSpec(Spec):
    """What both optimisers share."""

    lr: float = Field(gt=0)
    """Peak learning rate of the backbone."""
    head_lr_factor: float = Field(1.0, gt=0)
    """Learning rate of everything outside the backbone, as a multiple of `lr`."""
    weight_decay: NonNegative = 0.0
    """Decay of the parameters that decay."""
    decay_norm_and_bias: bool = True
    """Whether 1-D parameters (norm layers, biases) decay too."""


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


OptimSpec = Annotated[SGDSpec | AdamWSpec, Field(discriminator="kind")]
