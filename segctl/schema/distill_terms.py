"""What may be matched between student and teacher: one spec a distillation term, named by its paper."""

from typing import Annotated, Literal

from pydantic import Field

from segctl.schema.loss_terms import Active, JaccardFamily, NonNegative, Output
from segctl.schema.spec import Spec

Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Momentum = Annotated[float, Field(ge=0, lt=1)]


class PixelKLSpec(Spec):
    """Pixel-wise KD: KL(teacher || student) at head stride over all pixels (arXiv:1503.02531, as CIRKD computes it)."""

    kind: Literal["kd"] = "kd"
    logits: Output = "main"
    """The logits it compares."""
    weight: NonNegative = 1.0
    """Its factor in the total."""
    temperature: float = Field(1.0, gt=0)
    """Softmax temperature; the term is multiplied by its square."""


class PairwiseSpec(Spec):
    """SKD's pairwise term: similarities of all pairs of pooled features inside an image (arXiv:1903.04197)."""

    kind: Literal["skd"] = "skd"
    weight: NonNegative = 10.0
    """Its factor in the total."""
    pool: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = 2
    """Max-pooling window: pixels a side (2 as in CIRKD's port), or a share of the map (0.5 as in SKD's own code)."""
    norm_gradient: bool = True
    """Whether gradients flow through the features' norms; false as in SKD's own code."""


class AdversarialSpec(Spec):
    """SKD's holistic term: a discriminator learns to tell teacher logits from student logits (arXiv:1903.04197).

    Used by SKD, IFVD and CWD alike. The discriminator has an Adam of its own and takes one step with each of the student's.
    """

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


class IntraClassSpec(Spec):
    """IFVD: how similar each pixel's feature is to the mean of its own class in the image (ECCV 2020)."""

    kind: Literal["ifvd"] = "ifvd"
    weight: NonNegative = 20.0
    """Its factor in the total."""


class ChannelSpec(Spec):
    """CWD on logits: where in the image each class's logits are high, as a distribution over pixels (arXiv:2011.13256)."""

    kind: Literal["cwd"] = "cwd"
    logits: Output = "main"
    """The logits it compares."""
    weight: NonNegative = 3.0
    """Its factor in the total."""
    temperature: Positive = 4.0
    """Softmax temperature; the term is multiplied by its square."""


class ChannelFeaturesSpec(Spec):
    """CWD on features: the same for every channel, behind a 1×1 convolution where the channels differ in number."""

    kind: Literal["cwd_features"] = "cwd_features"
    weight: NonNegative = 50.0
    """Its factor in the total."""
    temperature: Positive = 4.0
    """Softmax temperature; the term is multiplied by its square."""
    divide_by: Literal["student", "compared"] = "student"
    """Channels the sum is divided by: the student's before the adapter, as in the published code, or those compared."""


class CrossImageSpec(Spec):
    """CIRKD's mini-batch term: similarities of all pixels of any two images of a group (arXiv:2204.06986)."""

    kind: Literal["cirkd"] = "cirkd"
    weight: NonNegative = 1.0
    """Its factor in the total."""
    temperature: Positive = 0.1
    """Divides the similarities before the softmax."""
    group: int = Field(2, ge=2)
    """Images that are paired with each other; 2 as on each of the authors' GPUs, whatever the batch."""


class MemorySpec(Spec):
    """CIRKD's memory terms: similarities to teacher pixels and regions of earlier images (arXiv:2204.06986)."""

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
    pixel_slots: Count = 20_000
    """Length of each class's pixel queue."""
    region_slots: Count = 2_000
    """Length of each class's region queue."""
    pixels_each: Count = 16
    """Pixels stored per image and class."""
    pixel_samples: Count = 4096
    """Stored pixels that each pixel is compared with, divided evenly over the classes."""
    region_samples: Count = 1024
    """Stored regions that each pixel is compared with, divided evenly over the classes."""

    @property
    def weight(self) -> float:
        """The larger of its two factors."""
        return max(self.pixel_weight, self.region_weight)


class MaskStageSpec(Spec):
    """How MasKD learns its masks before the student's first step."""

    steps: Count | None = None
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


class MaskedSpec(Spec):
    """MasKD: squared logit differences inside learned masks (arXiv:2205.14589, its segmentation code)."""

    kind: Literal["maskd"] = "maskd"
    logits: Output = "main"
    """The logits it compares."""
    weight: NonNegative = 1.0
    """Its factor in the total."""
    tokens: Count = 8
    """Masks."""
    stage: MaskStageSpec = MaskStageSpec()
    """How the masks are learnt; terms with equal settings share them."""


class RelationSpec(Spec):
    """DIST: correlation over classes and over pixels (arXiv:2205.10536)."""

    kind: Literal["dist"] = "dist"
    logits: Output = "main"
    """The logits it compares."""
    weight: NonNegative = 1.0
    """Its factor in the total."""
    beta: NonNegative = 1.0
    """Factor of the relation over classes."""
    gamma: NonNegative = 1.0
    """Factor of the relation over pixels."""
    group: int = Field(2, ge=2)
    """Images whose pixels are correlated together; 2 as on each of the authors' GPUs, whatever the batch."""


class CalibrationSpec(Spec):
    """JML-KD's optional calibration of teacher pixels that are wrong or on a boundary (arXiv:2302.05666).

    Each is given the mean label of the image's pixels with similar probabilities. Nobody has published values for `keys` and
    `bandwidth`, so a preset must choose them.
    """

    keys: Count
    """Pixels of an image that others are compared with."""
    bandwidth: Positive
    """How far apart probabilities may be and still count as similar; of the order of 0.01."""
    balanced: bool = True
    """true: as many keys of each class in the image; false: any valid pixels."""
    kernel_size: Literal[3, 5, 7, 9] = 3
    """Window, in pixels: a pixel is on a boundary where its window holds another class."""


class SoftKLSpec(Spec):
    """KL(teacher || student) at label resolution over valid pixels: the pixel term of JML-KD (arXiv:2302.05666)."""

    kind: Literal["soft_kl"] = "soft_kl"
    logits: Output = "main"
    """The logits it compares."""
    weight: NonNegative = 1.0
    """Its factor in the total."""
    temperature: float = Field(1.0, gt=0)
    """Softmax temperature; the term is multiplied by its square."""
    calibration: CalibrationSpec | None = None
    """null: the teacher's probabilities as they are."""


class SoftJDTSpec(JaccardFamily):
    """Metric loss against the teacher's probabilities at label resolution: the IoU term of JML-KD (arXiv:2302.05666)."""

    kind: Literal["soft_jdt"] = "soft_jdt"
    logits: Output = "main"
    """The logits it compares."""
    weight: NonNegative = 1.0
    """Its factor in the total."""
    active: Active = "all"
    """Classes averaged over."""
    calibration: CalibrationSpec | None = None
    """null: the teacher's probabilities as they are."""


LogitsTermSpec = PixelKLSpec | AdversarialSpec | ChannelSpec | MaskedSpec | RelationSpec | SoftKLSpec | SoftJDTSpec
FeatureTermSpec = PairwiseSpec | IntraClassSpec | ChannelFeaturesSpec | CrossImageSpec | MemorySpec
DistillTermSpec = Annotated[LogitsTermSpec | FeatureTermSpec, Field(discriminator="kind")]


def reads(term: DistillTermSpec) -> Output | None:
    """The logits a term compares; None for a term on features."""
    return term.logits if isinstance(term, LogitsTermSpec) else None


def distill_names(terms: tuple[DistillTermSpec, ...]) -> list[str]:
    """What logs call each term: `<kind>_<logits>`, or `<kind>` on features, numbered from the second of a name on."""
    plain = [term.kind if reads(term) is None else f"{term.kind}_{reads(term)}" for term in terms]
    repeats = [plain[: index + 1].count(name) for index, name in enumerate(plain)]
    return [name if repeat == 1 else f"{name}_{repeat}" for name, repeat in zip(plain, repeats, strict=True)]
