"""What a student learns from its teacher: weighted terms, and the bundles the published methods are made of."""

from typing import Annotated, Literal

from pydantic import Field

from segctl.schema.losses import Active, JaccardFamily, NonNegative, Output
from segctl.schema.spec import Spec


class PixelKLSpec(Spec):
    """Pixel-wise KD: KL(teacher || student) at head stride over all pixels (arXiv:1503.02531, as CIRKD computes it)."""

    kind: Literal["kd"] = "kd"
    logits: Output = "main"
    """The logits it compares."""
    weight: NonNegative = 1.0
    """Its factor in the total."""
    temperature: float = Field(1.0, gt=0)
    """Softmax temperature; the term is multiplied by its square."""


class SoftKLSpec(Spec):
    """KL(teacher || student) at label resolution over valid pixels: the pixel term of JML-KD (arXiv:2302.05666)."""

    kind: Literal["soft_kl"] = "soft_kl"
    logits: Output = "main"
    """The logits it compares."""
    weight: NonNegative = 1.0
    """Its factor in the total."""
    temperature: float = Field(1.0, gt=0)
    """Softmax temperature; the term is multiplied by its square."""


class SoftJDTSpec(JaccardFamily):
    """Metric loss against the teacher's probabilities at label resolution: the IoU term of JML-KD (arXiv:2302.05666)."""

    kind: Literal["soft_jdt"] = "soft_jdt"
    logits: Output = "main"
    """The logits it compares."""
    weight: NonNegative = 1.0
    """Its factor in the total."""
    active: Active = "all"
    """Classes averaged over."""


DistillTermSpec = Annotated[PixelKLSpec | SoftKLSpec | SoftJDTSpec, Field(discriminator="kind")]


class DistillerSpec(Spec):
    """Total loss = label_weight * (task loss) + the terms below."""

    label_weight: NonNegative = 1.0
    """Factor of the whole task loss; JML-KD halves it, every other method leaves it at 1."""
    terms: tuple[DistillTermSpec, ...] = Field(min_length=1)
    """What is matched between student and teacher."""


class TeacherSpec(Spec):
    """Where the teacher comes from when `--teacher` does not say."""

    preset: str = Field(min_length=1)
    """The newest finished run of this preset is the teacher."""


Method = Literal["none", "kd", "jml"]

METHODS: dict[Method, DistillerSpec | None] = {
    "none": None,
    "kd": DistillerSpec(terms=(PixelKLSpec(),)),
    "jml": DistillerSpec(
        label_weight=0.5,
        terms=(
            SoftKLSpec(logits="main", weight=0.0625),
            SoftKLSpec(logits="aux", weight=0.0625),
            SoftJDTSpec(logits="main", weight=0.375, smooth=1.0),
        ),
    ),
}
"""Each method's published bundle; `none` is the undistilled student."""


def method_of(distiller: DistillerSpec | None) -> str:
    """The published method whose bundle this is: `none` without a distiller, `custom` for a mixture of one's own."""
    return next((name for name, bundle in METHODS.items() if bundle == distiller), "custom")
