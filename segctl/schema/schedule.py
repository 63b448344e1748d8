"""The learning rate over the steps of a run."""

from typing import Literal

from pydantic import Field

from segctl.schema.loss_terms import NonNegative
from segctl.schema.optim import Fraction
from segctl.schema.spec import Spec


class PolySpec(Spec):
    """Linear warm-up, then (1 - progress)^power from the peak down to a floor."""

    kind: Literal["poly"] = "poly"
    power: float = Field(0.9, gt=0)
    """Exponent of the decay."""
    warmup_fraction: Fraction = 0.0
    """Share of the steps spent warming up."""
    warmup_factor: Fraction = 1 / 60
    """Smallest multiple of the peak used while warming up."""
    floor_lr: NonNegative = 0.0
    """Learning rate at the end: the decay goes from the peak down to this."""
