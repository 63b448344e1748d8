"""The task loss: a list of weighted terms."""

from collections.abc import Sequence
from typing import Annotated, Literal, Protocol

from pydantic import Field

from segctl.schema.spec import Spec

Output = Literal["main", "aux"]
Active = Literal["present", "all"]
Reduce = Literal["local", "global"]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]
ClassWeights = Annotated[tuple[NonNegative, ...], Field(min_length=2)]


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
    reduce: Reduce = "local"
    """global: sums and means over the images of all GPUs, before the ratio; local: each GPU's own."""


class CrossEntropySpec(Spec):
    """Mean cross-entropy over valid pixels; hard or soft labels."""

    kind: Literal["cross_entropy"] = "cross_entropy"
    logits: Output = "main"
    """The logits it reads."""
    weight: NonNegative = 1.0
    """Its factor in the total."""
    class_weights: ClassWeights | None = None
    """One factor per class; the mean is then divided by the weights of the valid pixels."""


class FocalSpec(Spec):
    """Cross-entropy times (1 - p)^gamma, mean over valid pixels; hard or soft labels (arXiv:1708.02002)."""

    kind: Literal["focal"] = "focal"
    logits: Output = "main"
    """The logits it reads."""
    weight: NonNegative = 1.0
    """Its factor in the total."""
    gamma: NonNegative = 2.0
    """Focusing exponent; 0 is cross-entropy."""
    class_weights: ClassWeights | None = None
    """One factor per class, alpha in the paper."""


class OhemSpec(Spec):
    """Mean cross-entropy over the hard pixels alone: online hard example mining; hard or soft labels."""

    kind: Literal["ohem"] = "ohem"
    logits: Output = "main"
    """The logits it reads."""
    weight: NonNegative = 1.0
    """Its factor in the total."""
    threshold: Share = 0.7
    """A pixel is hard where its label's class has a probability below this."""
    min_share: Share = 0.0625
    """Where fewer than this share of the valid pixels are hard, the hardest so many are taken."""


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
    class_weights: ClassWeights | None = None
    """One factor per class on its term; the sum is divided by the number of active classes."""


class OverlapFamily(Spec):
    """What the baselines beside the metric loss have in common."""

    logits: Output = "main"
    """The logits it reads."""
    weight: NonNegative = 1.0
    """Its factor in the total."""
    per_image: bool = False
    """true: each image by itself; false: the batch as one image."""
    active: Active = "present"
    """Classes averaged over."""


class LovaszSpec(OverlapFamily):
    """Lovász-Softmax; hard labels only (arXiv:1705.08790)."""

    kind: Literal["lovasz"] = "lovasz"


class SoftJaccardSpec(OverlapFamily):
    """Soft Jaccard as most libraries have it, a baseline; use jdt to train with soft labels."""

    kind: Literal["soft_jaccard"] = "soft_jaccard"
    smooth: NonNegative = 1.0
    """Added above and below the fraction line."""


class SoftDiceSpec(OverlapFamily):
    """Soft Dice as most libraries have it, a baseline; use jdt with alpha = beta = 0.5 to train with soft labels."""

    kind: Literal["soft_dice"] = "soft_dice"
    smooth: NonNegative = 1.0
    """Added above and below the fraction line."""


LossTermSpec = Annotated[
    CrossEntropySpec | FocalSpec | OhemSpec | KLSpec | JDTSpec | LovaszSpec | SoftJaccardSpec | SoftDiceSpec,
    Field(discriminator="kind"),
]


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
