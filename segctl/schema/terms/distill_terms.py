"""What a student may match of its teacher: one spec for each distillation term, named after its paper.

A spec says what a preset may set, how the term is written in the total loss (`formula`), and which class computes it (`term`).
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from segctl.schema.spec import Spec
from segctl.schema.terms.loss_terms import ActiveInMetric, JaccardFamily, NonNegative, Output, classes

Positive = Annotated[float, Field(gt=0, le=1e9)]
AtLeastOne = Annotated[int, Field(ge=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]


Read = Output | Literal["features"]
"""A map of a network's output that a term reads."""


class DistillTerm(Spec):
    """The base of every distillation term; derive from LogitsTerm or FeatureTerm."""

    term: ClassVar[str]
    """`file.Class` under segctl/distillers. A pointer instead of the class, because presets are read without importing torch;
    `segctl.distillers.build` follows it."""
    compares_images: ClassVar[bool] = False
    """Whether it compares images with each other; then a micro-batch of one image is refused."""
    kind: str

    @abstractmethod
    def formula(self) -> list[str]:
        """The term in the total loss, its weight included: one line for each of its values."""

    @property
    @abstractmethod
    def reads(self) -> tuple[Read, ...]:
        """The maps that it compares; each needs its place in the teacher cache."""

    def part_weights(self) -> dict[str, float]:
        """The factor of each value by name; empty for a term with a single value, whose factor is `weight`."""
        return {}


class LogitsTerm(DistillTerm):
    """A term that compares logits."""

    at_label_size: ClassVar[bool] = False
    """Whether both networks' logits are upsampled to the label's size first; if not, they are compared at head stride."""
    logits: Output = "main"
    """The logits it compares."""
    weight: NonNegative = 1.0
    """Its factor in the total."""

    @property
    def reads(self) -> tuple[Read, ...]:
        return (self.logits,)

    @property
    def place(self) -> str:
        """Where it compares, for `formula`."""
        return self.logits if self.at_label_size else f"{self.logits} at head stride"


class FeatureTerm(DistillTerm):
    """A term that compares features: the inputs of the final 1×1 classifiers. A teacher that hides them is refused."""

    @property
    def reads(self) -> tuple[Read, ...]:
        return ("features",)


class PixelKLSpec(LogitsTerm):
    """Pixel-wise KD: KL(teacher || student) at head stride over all pixels (arXiv:1503.02531, as CIRKD computes it)."""

    term: ClassVar[str] = "kd.PixelKL"
    kind: Literal["kd"] = "kd"
    temperature: float = Field(1.0, gt=0)
    """Softmax temperature; the term is multiplied by its square."""

    def formula(self) -> list[str]:
        return [f"{self.weight:g}·KD({_temperature(self.temperature)}{self.place}, all pixels)"]


class PairwiseSpec(FeatureTerm):
    """SKD's pairwise term: similarities of all pairs of pooled features inside an image (arXiv:1903.04197)."""

    term: ClassVar[str] = "skd.Pairwise"
    kind: Literal["skd"] = "skd"
    weight: NonNegative = 10.0
    """Its factor in the total."""
    pool: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = 2
    """Max-pooling window: pixels a side (2 as in CIRKD's port), or a share of the map (0.5 as in SKD's own code)."""
    norm_gradient: bool = True
    """Whether gradients flow through the features' norms; false as in SKD's own code."""

    def formula(self) -> list[str]:
        return [f"{self.weight:g}·pairwise similarity(features, max-pool {self.pool:g})"]


class AdversarialSpec(LogitsTerm):
    """SKD's holistic term: a discriminator learns to tell teacher logits from student logits (arXiv:1903.04197).

    Used by SKD, IFVD and CWD alike. The discriminator has an Adam of its own and takes one step with each of the student's.
    """

    term: ClassVar[str] = "discriminator.Adversarial"
    kind: Literal["adversarial"] = "adversarial"
    logits: Output = "main"
    """The logits the discriminator sees."""
    weight: NonNegative = 1e-3
    """Factor of the student's part, -mean D(student), in the total."""
    discriminator_weight: NonNegative = 0.1
    """Factor of the discriminator's own loss."""
    loss: Literal["hinge", "wgan_gp"] = "hinge"
    """The discriminator's loss: hinge as in CIRKD's port, or Wasserstein with gradient penalty as in SKD's and IFVD's code."""
    gradient_penalty: NonNegative = 10.0
    """Factor of the gradient penalty inside the wgan_gp loss."""
    lr: Positive = 4e-4
    """The discriminator's constant learning rate."""
    betas: tuple[Momentum, Momentum] = (0.9, 0.99)
    """The discriminator's Adam."""

    def part_weights(self) -> dict[str, float]:
        return {"generator": self.weight, "discriminator": self.discriminator_weight}

    def formula(self) -> list[str]:
        return [f"{self.weight:g}·[-mean D({self.place})], while D learns by {self.discriminator_weight:g}·{self.loss}"]


class IntraClassSpec(FeatureTerm):
    """IFVD: how similar each pixel's feature is to the mean of its own class in the image (ECCV 2020)."""

    term: ClassVar[str] = "ifvd.IntraClass"
    kind: Literal["ifvd"] = "ifvd"
    weight: NonNegative = 20.0
    """Its factor in the total."""

    def formula(self) -> list[str]:
        return [f"{self.weight:g}·intra-class variation(features, y)"]


class ChannelSpec(LogitsTerm):
    """CWD on logits: where in the image each class's logits are high, as a distribution over pixels (arXiv:2011.13256)."""

    term: ClassVar[str] = "cwd.ChannelLogits"
    kind: Literal["cwd"] = "cwd"
    weight: NonNegative = 3.0
    """Its factor in the total."""
    temperature: Positive = 4.0
    """Softmax temperature; the term is multiplied by its square."""

    def formula(self) -> list[str]:
        return [f"{self.weight:g}·CWD({_temperature(self.temperature)}{self.place})"]


class ChannelFeaturesSpec(FeatureTerm):
    """CWD on features: the same for every channel, behind a 1×1 convolution where the channels differ in number."""

    term: ClassVar[str] = "cwd.ChannelFeatures"
    kind: Literal["cwd_features"] = "cwd_features"
    weight: NonNegative = 50.0
    """Its factor in the total."""
    temperature: Positive = 4.0
    """Softmax temperature; the term is multiplied by its square."""
    divide_by: Literal["published", "student", "compared"] = "published"
    """Channels the sum is divided by. published: half of those compared, for any teacher; the published code compares
    256 and divides by the 128 of its student, and its weight of 50 belongs to that. student: those before the adapter, as
    that code is written; the term then grows with the teacher's width. compared: all of them, a plain mean."""

    def formula(self) -> list[str]:
        how = "twice the mean over channels" if self.divide_by == "published" else f"over the number of {self.divide_by} channels"
        inside = f"{_temperature(self.temperature)}features, {how}"
        return [f"{self.weight:g}·CWD({inside})"]


class CrossImageSpec(FeatureTerm):
    """CIRKD's mini-batch term: similarities of all pixels of any two images of a group (arXiv:2204.06986)."""

    term: ClassVar[str] = "cirkd.CrossImage"
    compares_images: ClassVar[bool] = True
    kind: Literal["cirkd"] = "cirkd"
    weight: NonNegative = 1.0
    """Its factor in the total."""
    temperature: Positive = 0.1
    """Divides the similarities before the softmax."""
    group: int = Field(2, ge=2)
    """Images that are paired with each other; 2, as on each of the authors' GPUs, for any batch size."""

    def formula(self) -> list[str]:
        return [f"{self.weight:g}·cross-image similarity(τ {self.temperature:g}, features, groups of {self.group})"]


class MemorySpec(FeatureTerm):
    """CIRKD's memory terms: similarities to teacher pixels and regions of earlier images (arXiv:2204.06986)."""

    term: ClassVar[str] = "memory.Memory"
    kind: Literal["cirkd_memory"] = "cirkd_memory"
    pixel_weight: NonNegative = 0.1
    """Factor of the pixel term in the total."""
    region_weight: NonNegative = 0.1
    """Factor of the region term in the total."""
    temperature: Positive = 0.1
    """Divides the similarities before the softmax."""
    queue: Literal["faithful", "fixed"] = "faithful"
    """`faithful` stores, for a class of N pixels, some of the image's first N pixels, as the published code does by mistake;
    `fixed` stores pixels of that class."""
    pixel_slots: AtLeastOne = 20_000
    """Length of each class's pixel queue."""
    region_slots: AtLeastOne = 2_000
    """Length of each class's region queue."""
    pixels_each: AtLeastOne = 16
    """Pixels stored per image and class."""
    pixel_samples: AtLeastOne = 4096
    """Stored pixels that each pixel is compared with, divided evenly over the classes."""
    region_samples: AtLeastOne = 1024
    """Stored regions that each pixel is compared with, divided evenly over the classes."""

    @property
    def weight(self) -> float:
        """The larger of its two factors."""
        return max(self.pixel_weight, self.region_weight)

    def part_weights(self) -> dict[str, float]:
        return {"pixel": self.pixel_weight, "region": self.region_weight}

    def formula(self) -> list[str]:
        memory = f"memory(τ {self.temperature:g}, features, {self.queue} queues)"
        return [f"{weight:g}·{part} {memory}" for part, weight in self.part_weights().items()]


class MaskStageSpec(Spec):
    """How MasKD learns its masks before the student's first step."""

    steps: AtLeastOne | None = None
    """Steps; null takes a quarter of the run's own, which is the published 10,000 of 40,000."""
    lr: Positive = 0.1
    """Peak learning rate."""
    momentum: Momentum = 0.9
    """Momentum of its SGD."""
    weight_decay: NonNegative = 1e-3
    """Decay of the tokens."""
    power: Positive = 0.9
    """Exponent of the poly schedule, which ends at 0."""
    seed: int = Field(0, ge=0)
    """Seed of the tokens and of the views they learn from; apart from the run's, so that all seeds share the masks."""


class MaskedSpec(LogitsTerm):
    """MasKD: squared logit differences inside learned masks (arXiv:2205.14589, its segmentation code)."""

    term: ClassVar[str] = "maskd.MaskedLogits"
    kind: Literal["maskd"] = "maskd"
    tokens: AtLeastOne = 8
    """Masks."""
    stage: MaskStageSpec = MaskStageSpec()
    """How the masks are learnt; terms with equal settings share them."""

    def formula(self) -> list[str]:
        return [f"{self.weight:g}·MasKD({self.tokens} masks, {self.place})"]


class RelationSpec(LogitsTerm):
    """DIST: correlation over classes and over pixels (arXiv:2205.10536)."""

    term: ClassVar[str] = "dist.Relation"
    compares_images: ClassVar[bool] = True
    kind: Literal["dist"] = "dist"
    beta: NonNegative = 1.0
    """Factor of the relation over classes."""
    gamma: NonNegative = 1.0
    """Factor of the relation over pixels."""
    group: int = Field(2, ge=2)
    """Images whose pixels are correlated together; 2, as on each of the authors' GPUs, for any batch size."""

    def formula(self) -> list[str]:
        return [f"{self.weight:g}·DIST(β {self.beta:g}, γ {self.gamma:g}, {self.place}, groups of {self.group})"]


class CalibrationSpec(Spec):
    """JML-KD's optional calibration of teacher pixels that are wrong or on a boundary (arXiv:2302.05666).

    Each is given the mean label of the image's pixels with similar probabilities. Nobody has published values for `keys` and
    `bandwidth`, so a preset must choose them.
    """

    keys: AtLeastOne
    """Pixels of an image that others are compared with."""
    bandwidth: Positive
    """How far apart probabilities may be and still count as similar; of the order of 0.01."""
    balanced: bool = True
    """true: as many keys of each class in the image; false: any valid pixels."""
    kernel_size: Literal[3, 5, 7, 9] = 3
    """Window, in pixels: a pixel is on a boundary where its window holds another class."""

    def formula(self) -> str:
        """The teacher's probabilities after calibration."""
        keys = f"{self.keys} {'balanced ' if self.balanced else ''}keys"
        return f"teacher calibrated(h {self.bandwidth:g}, {keys}, {self.kernel_size}×{self.kernel_size})"


Compared = Literal["labelled", "all"]
"""The pixels of a labelled picture over which a soft label counts: those that have a label, as published, or all of them, padding
included. Of a picture without label every real pixel counts, and no padding."""


class SoftKLSpec(LogitsTerm):
    """KL(teacher || student) at label resolution: the pixel term of JML-KD (arXiv:2302.05666)."""

    term: ClassVar[str] = "jml.SoftKL"
    at_label_size: ClassVar[bool] = True
    kind: Literal["soft_kl"] = "soft_kl"
    temperature: float = Field(1.0, gt=0)
    """Softmax temperature; the term is multiplied by its square."""
    pixels: Compared = "labelled"
    """Compare the labelled pixels of labelled pictures, as published, or all of them."""
    calibration: CalibrationSpec | None = None
    """null: the teacher's probabilities as they are."""

    def formula(self) -> list[str]:
        where = f"{self.place}{', all pixels' if self.pixels == 'all' else ''}"
        return [f"{self.weight:g}·KL({_temperature(self.temperature)}{_teacher(self.calibration)} ‖ {where})"]


class SoftJDTSpec(LogitsTerm, JaccardFamily):
    """Metric loss against the teacher's probabilities at label resolution: the IoU term of JML-KD (arXiv:2302.05666)."""

    term: ClassVar[str] = "jml.SoftJDT"
    at_label_size: ClassVar[bool] = True
    kind: Literal["soft_jdt"] = "soft_jdt"
    active: ActiveInMetric = "all"
    """Classes averaged over."""
    pixels: Compared = "labelled"
    """Compare the labelled pixels of labelled pictures, as published, or all of them."""
    calibration: CalibrationSpec | None = None
    """null: the teacher's probabilities as they are."""

    def formula(self) -> list[str]:
        where = f"{self.place}{', all pixels' if self.pixels == 'all' else ''}"
        index = self.index_formula(where, _teacher(self.calibration), classes(self.active, "all"))
        return [f"{self.weight:g}·{index}"]


class AttentionSpec(FeatureTerm):
    """AT: where in the image the features are large (arXiv:1612.03928)."""

    term: ClassVar[str] = "at.Attention"
    kind: Literal["at"] = "at"
    weight: NonNegative = 10_000.0
    """Its factor in the total."""

    def formula(self) -> list[str]:
        return [f"{self.weight:g}·attention(features)"]


class HintSpec(FeatureTerm):
    """FitNet: features equal the teacher's behind a 1×1 convolution (arXiv:1412.6550)."""

    term: ClassVar[str] = "fitnet.Hint"
    kind: Literal["fitnet"] = "fitnet"
    weight: NonNegative = 10.0
    """Its factor in the total."""

    def formula(self) -> list[str]:
        return [f"{self.weight:g}·FitNet(features)"]


class DoubleSimilaritySpec(FeatureTerm):
    """DSD: how attention changes over auxiliary logits, features and main logits, and how alike classes' maps are (TIP 2021)."""

    term: ClassVar[str] = "dsd.DoubleSimilarity"
    kind: Literal["dsd"] = "dsd"
    logits: Output = "main"
    """The logits before the features; `aux` as published for ResNets, `main` for a network without an auxiliary classifier."""
    pixel_weight: NonNegative = 1000.0
    """Factor of the pixel term in the total."""
    category_weight: NonNegative = 10.0
    """Factor of the category term in the total."""
    temperature: Positive = 4.0
    """Divides the logits before the category term's softmax over pixels."""

    @property
    def weight(self) -> float:
        """The larger of its two factors."""
        return max(self.pixel_weight, self.category_weight)

    @property
    def reads(self) -> tuple[Read, ...]:
        return (self.logits, "features", "main")

    def part_weights(self) -> dict[str, float]:
        return {"pixel": self.pixel_weight, "category": self.category_weight}

    def formula(self) -> list[str]:
        return [
            f"{self.pixel_weight:g}·residual attention({self.logits}, features, main)",
            f"{self.category_weight:g}·class similarity(T {self.temperature:g}, main at head stride)",
        ]


DistillTermSpec = Annotated[
    PixelKLSpec
    | PairwiseSpec
    | AdversarialSpec
    | IntraClassSpec
    | ChannelSpec
    | ChannelFeaturesSpec
    | CrossImageSpec
    | MemorySpec
    | MaskedSpec
    | RelationSpec
    | SoftKLSpec
    | SoftJDTSpec
    | AttentionSpec
    | HintSpec
    | DoubleSimilaritySpec,
    Field(discriminator="kind"),
]


def distill_names(terms: Sequence[DistillTerm]) -> list[str]:
    """The name of each term in logs: `<kind>_<logits>`, or `<kind>` on features; equal names are numbered from the second one."""
    plain = [f"{term.kind}_{term.logits}" if isinstance(term, LogitsTerm) else term.kind for term in terms]
    repeats = [plain[: index + 1].count(name) for index, name in enumerate(plain)]
    return [name if repeat == 1 else f"{name}_{repeat}" for name, repeat in zip(plain, repeats, strict=True)]


def _teacher(calibration: CalibrationSpec | None) -> str:
    return "teacher" if calibration is None else calibration.formula()


def _temperature(temperature: float) -> str:
    return "" if temperature == 1 else f"T {temperature:g}, "
