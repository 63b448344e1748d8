"""The task loss: a list of weighted terms.

A spec says what a preset may set, how the term is written in the total loss (`formula`), and which class computes it (`loss`).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from segctl.schema.spec import Spec, auto_or_value

Output = Literal["main", "aux"]
Active = Literal["present", "all"]
ActiveInMetric = Literal["present", "all", "probability", "both"]
"""The classes that the metric loss averages over: by the label, all, by the prediction, or by the sum of both."""
Overlap = Literal["minimum", "product"]
Reduce = Literal["local", "global"]
NonNegative = Annotated[float, Field(ge=0, le=1e9)]
UnitFraction = Annotated[float, Field(gt=0, le=1)]
ClassWeights = Annotated[tuple[NonNegative, ...], Field(min_length=2)]
ClassWeightsOrAuto = Annotated[
    Annotated[ClassWeights, Tag("value")] | Annotated[Literal["auto"], Tag("auto")], Discriminator(auto_or_value)
]


class LossTerm(Spec):
    """The base of every term of the task loss."""

    loss: ClassVar[str]
    """`file.Class` under segctl/losses. A pointer instead of the class, because presets are read without importing torch;
    `segctl.losses.build` follows it."""
    kind: str
    logits: Output = "main"
    """The logits it reads."""
    weight: NonNegative = 1.0
    """Its factor in the total."""

    @abstractmethod
    def formula(self, label: str, soft: bool) -> str:
        """The term without its weight, such as `CE(main, y)`; `soft` says whether the label is.

        Options at their defaults stay out; every other one that changes the number is there.
        """


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
    """Focal exponent on (1 - index), or on -log(index) where log_loss is true; whole where norm is 2 and alpha is not beta."""
    smooth: NonNegative = 1e-3
    """Added above and below the fraction line."""
    norm: Literal[1, 2] = 1
    """1: intersection by absolute differences (exact for soft labels); 2: by products and squares."""
    log_loss: bool = False
    """Use -log(index) instead of (1 - index)."""
    threshold: float = Field(0.01, ge=0, lt=1)
    """A class is present where its largest label value exceeds this (probability: its largest predicted one; both: their sum)."""
    overlap: Overlap = "minimum"
    """The correct part: minimum takes sum min(p, y); product takes sum p·y there and leaves both errors as they are, which is
    another loss on soft labels (JML2 of arXiv:2302.05666)."""
    reduce: Reduce = "global"
    """global: sums and means over the images of all processes, so any number of processes has the same loss; local: each
    process's own images."""

    def index_formula(self, logits: str, label: str, options: list[str]) -> str:
        """`Jaccard_D(main, y)`, `Dice_I(main, y; s=1)`, `Tversky(0.3, 0.7)_D+C`, `log Jaccard_D^2`.

        The index, its means, its exponent and its log form; then what differs from the defaults, and `options`.
        """
        names = {(1.0, 1.0): "Jaccard", (0.5, 0.5): "Dice"}
        index = names.get((self.alpha, self.beta), f"Tversky({self.alpha:g}, {self.beta:g})")
        weights = (("D", self.miou_d), ("I", self.miou_i), ("C", self.miou_c))
        mean = "+".join(name if weight == 1 else f"{weight:g}{name}" for name, weight in weights if weight > 0)
        focal = "" if self.gamma == 1 else f"^{self.gamma:g}"
        fields = JaccardFamily.model_fields
        shown = (("s", "smooth"), ("norm", "norm"), ("threshold", "threshold"))
        changed = [f"{name}={getattr(self, key):g}" for name, key in shown if getattr(self, key) != fields[key].default]
        changed += ["sum p·y"] if self.overlap == "product" else []
        changed += ["each process's own images"] if self.reduce == "local" else []
        return call(f"{'log ' if self.log_loss else ''}{index}_{mean}{focal}", logits, label, [*changed, *options])


class CrossEntropySpec(LossTerm):
    """Mean cross-entropy over valid pixels; hard or soft labels."""

    loss: ClassVar[str] = "cross_entropy.CrossEntropyLoss"
    kind: Literal["cross_entropy"] = "cross_entropy"
    class_weights: ClassWeightsOrAuto | None = None
    """One factor per class; the mean is then divided by the weights of the valid pixels. `auto`: rare classes weigh more."""

    def formula(self, label: str, soft: bool) -> str:
        return call("CE", self.logits, label, _weighting(self.class_weights))


class FocalSpec(LossTerm):
    """Cross-entropy times (1 - p)^gamma, mean over valid pixels; hard or soft labels (arXiv:1708.02002)."""

    loss: ClassVar[str] = "focal.FocalLoss"
    kind: Literal["focal"] = "focal"
    gamma: NonNegative = 2.0
    """Focusing exponent; 0 is cross-entropy."""
    class_weights: ClassWeightsOrAuto | None = None
    """One factor per class, alpha in the paper. `auto`: rare classes weigh more."""

    def formula(self, label: str, soft: bool) -> str:
        return call("Focal", self.logits, label, [f"γ={self.gamma:g}", *_weighting(self.class_weights)])


class OhemSpec(LossTerm):
    """Mean cross-entropy over only the hard pixels: online hard example mining; hard or soft labels."""

    loss: ClassVar[str] = "ohem.HardPixelLoss"
    kind: Literal["ohem"] = "ohem"
    threshold: UnitFraction = 0.7
    """A pixel is hard where its label's class has a probability below this."""
    min_share: UnitFraction = 0.0625
    """If fewer than this share of the valid pixels are hard, the hardest pixels fill it up."""

    def formula(self, label: str, soft: bool) -> str:
        return call("OHEM", self.logits, label, [f"p<{self.threshold:g}", f"at least {self.min_share:g} of the pixels"])


class KLSpec(LossTerm):
    """Mean KL(label || prediction) over valid pixels; soft labels only (cross-entropy minus the labels' entropy)."""

    loss: ClassVar[str] = "kl.KLLoss"
    kind: Literal["kl"] = "kl"

    def formula(self, label: str, soft: bool) -> str:
        return f"KL({label} ‖ {self.logits})"


class JDTSpec(LossTerm, JaccardFamily):
    """Jaccard, Dice or Tversky metric loss; hard or soft labels."""

    loss: ClassVar[str] = "jdt.JDTLoss"
    kind: Literal["jdt"] = "jdt"
    active_hard: ActiveInMetric = "present"
    """Classes averaged over when labels are hard."""
    active_soft: ActiveInMetric = "all"
    """Classes averaged over when labels are soft."""
    class_weights: ClassWeights | None = None
    """One factor per class on its term; the sum is divided by the number of active classes."""

    def formula(self, label: str, soft: bool) -> str:
        averaged = classes(self.active_soft, "all") if soft else classes(self.active_hard, "present")
        return self.index_formula(self.logits, label, [*averaged, *_weighting(self.class_weights)])


class OverlapTerm(LossTerm):
    """The settings that all baselines of the metric loss share."""

    per_image: bool = False
    """true: each image by itself; false: the batch as one image."""
    active: Active = "present"
    """Classes averaged over."""

    def overlap_formula(self, name: str, label: str, smooth: float = 1.0) -> str:
        options = [*(["per image"] if self.per_image else []), *([] if smooth == 1 else [f"s={smooth:g}"])]
        return call(name, self.logits, label, [*options, *classes(self.active, "present")])


class LovaszSpec(OverlapTerm):
    """Lovász-Softmax; hard labels only (arXiv:1705.08790)."""

    loss: ClassVar[str] = "lovasz.LovaszSoftmaxLoss"
    kind: Literal["lovasz"] = "lovasz"

    def formula(self, label: str, soft: bool) -> str:
        return self.overlap_formula("Lovász", label)


class SoftJaccardSpec(OverlapTerm):
    """Soft Jaccard as most libraries have it, a baseline; use jdt to train with soft labels."""

    loss: ClassVar[str] = "soft_overlap.SoftJaccardLoss"
    kind: Literal["soft_jaccard"] = "soft_jaccard"
    smooth: NonNegative = 1.0
    """Added above and below the fraction line."""

    def formula(self, label: str, soft: bool) -> str:
        return self.overlap_formula("softJaccard", label, self.smooth)


class SoftDiceSpec(OverlapTerm):
    """Soft Dice as most libraries have it, a baseline; use jdt with alpha = beta = 0.5 to train with soft labels."""

    loss: ClassVar[str] = "soft_overlap.SoftDiceLoss"
    kind: Literal["soft_dice"] = "soft_dice"
    smooth: NonNegative = 1.0
    """Added above and below the fraction line."""

    def formula(self, label: str, soft: bool) -> str:
        return self.overlap_formula("softDice", label, self.smooth)


LossTermSpec = Annotated[
    CrossEntropySpec | FocalSpec | OhemSpec | KLSpec | JDTSpec | LovaszSpec | SoftJaccardSpec | SoftDiceSpec,
    Field(discriminator="kind"),
]


def term_names(terms: Sequence[LossTerm]) -> list[str]:
    """The name of each term in logs: `<kind>_<logits>`; equal names are numbered from the second one."""
    names: list[str] = []
    for term in terms:
        name = f"{term.kind}_{term.logits}"
        repeat = 1 + sum(other == name or other.startswith(f"{name}_") for other in names)
        names.append(name if repeat == 1 else f"{name}_{repeat}")
    return names


def call(name: str, logits: str, label: str, options: list[str]) -> str:
    """`name(logits, label; option, option)`."""
    return f"{name}({logits}, {label}{'; ' if options else ''}{', '.join(options)})"


def classes(active: ActiveInMetric, usual: Active) -> list[str]:
    """Which classes are averaged over, where it is not the usual ones."""
    return [] if active == usual else [f"{active} classes"]


def _weighting(class_weights: ClassWeights | Literal["auto"] | None) -> list[str]:
    """A word for class weights, where there are any."""
    if class_weights == "auto":
        return ["classes weighted by 1/√frequency"]
    return [] if class_weights is None else ["weighted classes"]
