"""The task loss: a list of weighted terms."""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field

from segctl.schema.spec import Spec

Output = Literal["main", "aux"]
Active = Literal["present", "all"]
NonNegative = Annotated[float, Field(ge=0)]


class JaccardFamily(Spec):
    """The arguments of `segctl.losses.jdt.JDTLoss` that a preset may set; meaning as in the three papers."""

    miou_d: NonNegative = 1.0
    """Weight of the dataset variant: sums over all pixels of the batch."""
    miou_i: NonNegative = 0.0
    """Weight of the image variant: per image, then over classes, then over images."""
    miou_c: NonNegative = 0.0
    """Weight of the class variant: per image and class, over images first, then over classes."""
    alpha: NonNegative = 1.0
    """Weight of false positives; alpha = beta = 1 is Jaccard, 0.5 is Dice, anything else Tversky."""
    beta: NonNegative = 1.0
    """Weight of false negatives."""
    gamma: float = Field(1.0, ge=1)
    """Focal exponent on (1 - index), or on -log(index) where log_loss is true."""
    smooth: NonNegative = 1e-3
    """Added above and below the fraction line."""
    norm: Literal[1, 2] = 1
    """1: intersection by absolute differences (exact for soft labels); 2: by products and squares."""
    log_loss: bool = False
    """Use -log(index) instead of (1 - index)."""
    threshold: float = Field(0.01, ge=0, lt=1)
    """A class is present where its largest label value exceeds this."""


class CrossEntropySpec(Spec):
    """Mean cross-entropy over valid pixels; hard or soft labels."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    logits: Output = "main"
    """The logits it reads."""
    weight: NonNegative = 1.0
    """Its factor in the total."""


class KLSpec(Spec):
    """Mean KL(label || prediction) over valid pixels; soft labels only (cross-entropy minus the labels' entropy)."""

    kind: Literal["kl"] = "kl"
    logits: Output = "main"
    """The logits it reads."""
    weight: NonNegative = 1.0
    """Its factor in the total."""


class JDTSpec(JaccardFamily):
    """Jaccard, Dice or Tversky metric loss; hard or soft labels."""

    kind: Literal["jdt"] = "jdt"
    logits: Output = "main"
    """The logits it reads."""
    weight: NonNegative = 1.0
    """Its factor in the total."""
    active_hard: Active = "present"
    """Classes averaged over when labels are hard."""
    active_soft: Active = "all"
    """Classes averaged over when labels are soft."""


LossTermSpec = Annotated[CrossEntropySpec | KLSpec | JDTSpec, Field(discriminator="kind")]


class Term(Protocol):
    """What every term of a loss or distiller has."""

    @property
    def kind(self) -> str: ...

    @property
    def logits(self) -> Output: ...


def term_names(terms: Sequence[Term]) -> list[str]:
    """What logs call each term: `<kind>_<logits>`, numbered from the second of a name on."""
    names: list[str] = []
    for term in terms:
        name = f"{term.kind}_{term.logits}"
        repeat = 1 + sum(other == name or other.startswith(f"{name}_") for other in names)
        names.append(name if repeat == 1 else f"{name}_{repeat}")
    return names
