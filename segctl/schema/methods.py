"""What a student learns from its teacher: weighted terms, and the bundles the published methods are made of."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from segctl.schema.distill_terms import (
    AdversarialSpec,
    ChannelFeaturesSpec,
    ChannelSpec,
    CrossImageSpec,
    DistillTermSpec,
    IntraClassSpec,
    MaskedSpec,
    MemorySpec,
    PairwiseSpec,
    PixelKLSpec,
    RelationSpec,
    SoftJDTSpec,
    SoftKLSpec,
)
from segctl.schema.loss_terms import NonNegative
from segctl.schema.spec import Spec


class DistillerSpec(Spec):
    """Total loss = label_weight * (task loss) + the terms below."""

    label_weight: NonNegative = 1.0
    """Factor of the whole task loss; JML-KD halves it, every other method leaves it at 1."""
    terms: tuple[DistillTermSpec, ...] = Field(min_length=1)
    """What is matched between student and teacher; terms of several methods may stand side by side."""


class TeacherSpec(Spec):
    """Where the teacher comes from when `--teacher` does not say."""

    preset: str = Field(min_length=1)
    """The newest finished run of this preset is the teacher."""
    cache: bool = False
    """Whether the teacher answers once for every picture, before step 1, and its answers are kept on disk beside the runs. Wants
    views that never change: one scale, and a crop that holds every picture; a flip is no hindrance."""


Method = Literal["none", "kd", "skd", "ifvd", "cwd", "cirkd", "maskd", "dist", "jml"]

METHODS: dict[Method, DistillerSpec | None] = {
    "none": None,
    "kd": DistillerSpec(terms=(PixelKLSpec(),)),
    "skd": DistillerSpec(terms=(PixelKLSpec(), PairwiseSpec(), AdversarialSpec())),
    "ifvd": DistillerSpec(terms=(PixelKLSpec(), IntraClassSpec(), AdversarialSpec())),
    "cwd": DistillerSpec(terms=(PixelKLSpec(), ChannelFeaturesSpec(), ChannelSpec(), AdversarialSpec())),
    "cirkd": DistillerSpec(terms=(PixelKLSpec(), CrossImageSpec(), MemorySpec())),
    "maskd": DistillerSpec(terms=(MaskedSpec(), MaskedSpec(logits="aux", weight=0.4))),
    "dist": DistillerSpec(terms=(RelationSpec(), RelationSpec(logits="aux", weight=0.4))),
    "jml": DistillerSpec(
        label_weight=0.5,
        terms=(
            SoftKLSpec(logits="main", weight=0.0625),
            SoftKLSpec(logits="aux", weight=0.0625),
            SoftJDTSpec(logits="main", weight=0.375, smooth=1.0),
        ),
    ),
}
"""Each method's published bundle, as on Cityscapes; `none` is the undistilled student."""


@dataclass(frozen=True)
class Variant:
    """A method's bundle as published for one dataset, or for students without an auxiliary head; `why` is a sentence."""

    method: Method
    distiller: DistillerSpec
    why: str
    dataset: str | None = None
    aux: bool | None = None

    def fits(self, method: Method, dataset: str, aux: bool) -> bool:
        return self.method == method and self.dataset in (None, dataset) and self.aux in (None, aux)


VARIANTS = (
    Variant(
        "cirkd",
        DistillerSpec(terms=(PixelKLSpec(), CrossImageSpec(), MemorySpec(pixel_weight=0.01, region_weight=0.01))),
        "on voc, cirkd was published with memory weights 0.01; elsewhere they are 0.1",
        dataset="voc",
    ),
    Variant(
        "maskd",
        DistillerSpec(terms=(MaskedSpec(),)),
        "this student has no auxiliary head, so maskd compares the main logits alone, as published for MobileNetV2",
        aux=False,
    ),
    Variant(
        "dist",
        DistillerSpec(terms=(RelationSpec(),)),
        "this student has no auxiliary head, so dist compares the main logits alone",
        aux=False,
    ),
)


def variant_of(method: Method, dataset: str, aux: bool) -> Variant | None:
    """What takes the place of METHODS[method] for a student on this dataset, with an auxiliary head or without."""
    return next((variant for variant in VARIANTS if variant.fits(method, dataset, aux)), None)


def published_bundle(method: Method, dataset: str, aux: bool) -> DistillerSpec | None:
    """The bundle behind a method's published number for a student on this dataset; None for `none`."""
    variant = variant_of(method, dataset, aux)
    return METHODS[method] if variant is None else variant.distiller


def method_of(distiller: DistillerSpec | None) -> str:
    """The published method whose bundle this is: `none` without a distiller, `custom` for a mixture of one's own."""
    known = [*METHODS.items(), *((variant.method, variant.distiller) for variant in VARIANTS)]
    return next((method for method, bundle in known if bundle == distiller), "custom")
