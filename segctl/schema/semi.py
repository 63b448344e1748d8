"""What a network learns from pictures without labels if it has no other teacher than itself or its own average."""

from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from segctl.schema.data import BlurSpec, ColorSpec, CutoutSpec, GreySpec, JpegSpec, NoiseSpec, Probability
from segctl.schema.optim import Fraction
from segctl.schema.spec import Spec
from segctl.schema.terms.loss_terms import ActiveInMetric, JaccardFamily, NonNegative, classes

Decay = Annotated[float, Field(gt=0, lt=1)]
StrongStep = Annotated[
    ColorSpec | BlurSpec | NoiseSpec | JpegSpec | GreySpec | CutoutSpec,
    Field(discriminator="kind"),
]
"""The operations of `data.augment` that leave every pixel where it is: a strong view must lie over its weak view."""
STRONG = (
    ColorSpec(probability=0.8, brightness=0.5, contrast=0.5, saturation=0.5, hue=0.25),
    GreySpec(probability=0.2),
    BlurSpec(probability=0.5),
)
"""The colour changes of UniMatch's strong views."""


class ConsistencyTerm(Spec, ABC):
    """The base of every term that compares the student on a strong view with its teacher on the weak view, at label size."""

    kind: str
    weight: NonNegative = 1.0
    """Its factor in the total."""

    @abstractmethod
    def formula(self, student: str, teacher: str) -> str:
        """The term with its weight, such as `1·KL(teacher ‖ main)`."""


class PseudoLabelSpec(ConsistencyTerm):
    """Cross-entropy with the teacher's most probable class: FixMatch's term (arXiv:2001.07685)."""

    kind: Literal["cross_entropy"] = "cross_entropy"

    def formula(self, student: str, teacher: str) -> str:
        return f"{self.weight:g}·CE({student}, class of {teacher})"


class ConsistencyKLSpec(ConsistencyTerm):
    """KL(teacher || student) of the probabilities of each pixel."""

    kind: Literal["soft_kl"] = "soft_kl"

    def formula(self, student: str, teacher: str) -> str:
        return f"{self.weight:g}·KL({teacher} ‖ {student})"


class ConsistencyJDTSpec(ConsistencyTerm, JaccardFamily):
    """Metric loss with the teacher's probabilities as soft labels (arXiv:2302.05666)."""

    kind: Literal["soft_jdt"] = "soft_jdt"
    active: ActiveInMetric = "all"
    """Classes averaged over."""

    def formula(self, student: str, teacher: str) -> str:
        return f"{self.weight:g}·{self.index_formula(student, teacher, classes(self.active, 'all'))}"


class ConsistencyMSESpec(ConsistencyTerm):
    """Mean squared difference of the probabilities: the mean teacher's published term (arXiv:1703.01780)."""

    kind: Literal["mse"] = "mse"

    def formula(self, student: str, teacher: str) -> str:
        return f"{self.weight:g}·MSE({student}, {teacher})"


ConsistencyTermSpec = Annotated[
    PseudoLabelSpec | ConsistencyKLSpec | ConsistencyJDTSpec | ConsistencyMSESpec, Field(discriminator="kind")
]


class SemiBase(Spec):
    """What all kinds share. The pictures come from data.unlabelled; the weak view is the one that `data` draws."""

    views: ClassVar[int] = 1
    """Strong views of each picture."""
    kind: str
    ema: Decay | None = None
    """Decay of the moving average of the student's weights, which is the teacher; their plain mean until step 1/(1 - decay).

    null: the student itself is the teacher, in eval mode.
    """
    weight: float = Field(1.0, gt=0, le=1e9)
    """Factor of all terms below."""
    ramp_up: Fraction = 0.0
    """Share of the steps during which `weight` rises from 0.7 % of itself, by exp(-5·(1 - x)²) as in arXiv:1610.02242."""
    threshold: float = Field(0.95, ge=0, lt=1)
    """A pixel teaches where the teacher's largest probability is at least this; 0: everywhere."""
    augment: Annotated[tuple[StrongStep, ...], Field(max_length=32)] = STRONG
    """What is done to a weak view to make a strong one, in this order."""
    cutmix: Probability = 0.5
    """How often a rectangle of a strong view comes from another picture without label (arXiv:1905.04899, 1906.01916)."""
    terms: tuple[ConsistencyTermSpec, ...] = Field((PseudoLabelSpec(),), min_length=1)
    """How the student on a strong view is compared with the teacher on the weak view."""

    def formula(self) -> list[str]:
        """The terms in the total loss, one line for each kind of view, and a line that says what the teacher is."""
        return [f"  + {self._sum(self.weight, 'main on a strong view')}", self._teacher()]

    def in_words(self) -> str:
        """Who the teacher is, and which weights are scored, in a line."""
        who = (
            "the student itself, in eval mode"
            if self.ema is None
            else f"the moving average of the student's weights, {self.ema:g}"
        )
        return f"semi-supervised by {self.kind}: the teacher is {who}; validation scores the student, or train.ema's average"

    def _sum(self, factor: float, student: str) -> str:
        inside = " + ".join(term.formula(student, "teacher") for term in self.terms)
        return f"{factor:g}·[{inside}]"

    def _teacher(self) -> str:
        who = (
            "the student itself, in eval mode" if self.ema is None else f"the moving average of the student (decay {self.ema:g})"
        )
        where = f", where its largest probability is at least {self.threshold:g}" if self.threshold else ""
        return f"where teacher is {who}, on the weak view{where}"


class MeanTeacherSpec(SemiBase):
    """Mean teacher: the student follows the moving average of its own weights (arXiv:1703.01780)."""

    kind: Literal["mean_teacher"] = "mean_teacher"
    ema: Decay = 0.99
    """Decay of the moving average of the student's weights, which is the teacher; their plain mean until step 1/(1 - decay)."""
    ramp_up: Fraction = 0.1
    """Share of the steps during which `weight` rises from 0.7 % of itself, by exp(-5·(1 - x)²) as in arXiv:1610.02242."""
    threshold: float = Field(0.0, ge=0, lt=1)
    """A pixel teaches where the teacher's largest probability is at least this; 0: everywhere."""
    cutmix: Probability = 0.0
    """How often a rectangle of a strong view comes from another picture without label (arXiv:1905.04899, 1906.01916)."""
    terms: tuple[ConsistencyTermSpec, ...] = Field((ConsistencyKLSpec(),), min_length=1)
    """How the student on a strong view is compared with the teacher on the weak view; the published term is `mse`."""


class FixMatchSpec(SemiBase):
    """FixMatch: sure predictions on a weak view are the labels of a strong view (arXiv:2001.07685)."""

    kind: Literal["fixmatch"] = "fixmatch"


class UniMatchSpec(SemiBase):
    """UniMatch: FixMatch with two strong views, and with the weak view through perturbed features (arXiv:2208.09910)."""

    views: ClassVar[int] = 2
    kind: Literal["unimatch"] = "unimatch"
    strong_weight: NonNegative = 0.5
    """Factor of the mean over both strong views, µ in the paper."""
    feature_weight: NonNegative = 0.5
    """Factor of the weak view with perturbed features, λ in the paper; 0 leaves its forward pass out."""
    dropout: float = Field(0.5, gt=0, lt=1)
    """Share of the feature maps' channels that are dropped to perturb them."""

    def formula(self) -> list[str]:
        lines = [f"  + {self._sum(self.weight * self.strong_weight, 'main, mean over two strong views')}"]
        if self.feature_weight:
            disturbed = f"main on the weak view without {self.dropout:g} of the channels"
            lines.append(f"  + {self._sum(self.weight * self.feature_weight, disturbed)}")
        return [*lines, self._teacher()]


SemiSpec = Annotated[MeanTeacherSpec | FixMatchSpec | UniMatchSpec, Field(discriminator="kind")]
