"""The learning rate over the steps of a run."""

from typing import Annotated, Literal

from pydantic import Field

from segctl.schema.optim import Fraction
from segctl.schema.spec import Spec
from segctl.schema.terms.loss_terms import NonNegative


class Warmup(Spec):
    """What all schedules share: a warm-up from a fraction of the peak learning rate to the peak."""

    warmup_fraction: Fraction = 0.0
    """Fraction of the steps spent on warm-up."""
    warmup_factor: Fraction = 1 / 60
    """Smallest fraction of the peak learning rate during warm-up."""


class PolySpec(Warmup):
    """Linear warm-up, then (1 - progress)^power from the peak down to a floor."""

    kind: Literal["poly"] = "poly"
    power: float = Field(0.9, gt=0, le=100)
    """Exponent of the decay."""
    floor_lr: NonNegative = 0.0
    """Learning rate at the end: the decay goes from the peak down to this."""


class CosineSpec(Warmup):
    """Linear warm-up, then half a cosine from the peak down to a floor (arXiv:1608.03983, without restarts)."""

    kind: Literal["cosine"] = "cosine"
    floor_lr: NonNegative = 0.0
    """Learning rate at the end: the decay goes from the peak down to this."""


class ConstantSpec(Warmup):
    """Linear warm-up, then the peak learning rate to the end."""

    kind: Literal["constant"] = "constant"


class OneCycleSpec(Warmup):
    """Half a cosine up to the peak, then half a cosine down to a floor (arXiv:1708.07120); momentum stays as it is."""

    kind: Literal["one_cycle"] = "one_cycle"
    warmup_fraction: Fraction = 0.3
    """Fraction of the steps spent on the way up."""
    warmup_factor: Fraction = 1 / 25
    """The first learning rate, as a fraction of the peak."""
    floor_lr: NonNegative = 0.0
    """Learning rate at the end: the decay goes from the peak down to this."""


ScheduleSpec = Annotated[PolySpec | CosineSpec | ConstantSpec | OneCycleSpec, Field(discriminator="kind")]
