"""What a student learns from its teacher: weighted terms, and the published methods as bundles of terms."""

from dataclasses import dataclass

from pydantic import Field

from segctl.errors import InputError, did_you_mean
from segctl.schema.spec import Spec
from segctl.schema.terms import distill_terms as term
from segctl.schema.terms.loss_terms import NonNegative


class DistillerSpec(Spec):
    """Total loss = label_weight * (task loss) + the terms below."""

    label_weight: NonNegative = 1.0
    """Factor of the whole task loss; JML-KD halves it, every other method leaves it at 1."""
    terms: tuple[term.DistillTermSpec, ...] = Field(min_length=1)
    """What is matched between student and teacher; terms of several methods may stand side by side."""


class TeacherSpec(Spec):
    """Where the teacher comes from when `--teacher` does not say."""

    preset: str = Field(min_length=1)
    """The newest finished run of this preset is the teacher; with `--teacher best` the best one by validation."""
    cache: bool = False
    """Compute the teacher's outputs once before step 1, store them beside the runs and reuse them. Requires fixed views: one
    scale and a crop at least as large as every image. Flips are allowed."""


Method = str
"""A key of METHODS, which is the only list of the methods."""


def _jml(pixels: term.Compared, main: float, aux: float) -> DistillerSpec:
    return DistillerSpec(
        label_weight=0.5,
        terms=(
            term.SoftKLSpec(logits="main", weight=main, pixels=pixels),
            term.SoftKLSpec(logits="aux", weight=aux, pixels=pixels),
            term.SoftJDTSpec(logits="main", weight=0.375, smooth=1.0, pixels=pixels),
        ),
    )


METHODS: dict[Method, DistillerSpec | None] = {
    "none": None,
    "kd": DistillerSpec(terms=(term.PixelKLSpec(),)),
    "skd": DistillerSpec(terms=(term.PixelKLSpec(), term.PairwiseSpec(), term.AdversarialSpec())),
    "ifvd": DistillerSpec(terms=(term.PixelKLSpec(), term.IntraClassSpec(), term.AdversarialSpec())),
    "cwd": DistillerSpec(terms=(term.PixelKLSpec(), term.ChannelFeaturesSpec(), term.ChannelSpec(), term.AdversarialSpec())),
    "cirkd": DistillerSpec(terms=(term.PixelKLSpec(), term.CrossImageSpec(), term.MemorySpec())),
    "maskd": DistillerSpec(terms=(term.MaskedSpec(), term.MaskedSpec(logits="aux", weight=0.4))),
    "dist": DistillerSpec(terms=(term.RelationSpec(), term.RelationSpec(logits="aux", weight=0.4))),
    "at": DistillerSpec(terms=(term.PixelKLSpec(), term.AttentionSpec())),
    "fitnet": DistillerSpec(terms=(term.PixelKLSpec(), term.HintSpec())),
    "dsd": DistillerSpec(terms=(term.DoubleSimilaritySpec(logits="aux"),)),
    "jml": _jml("labelled", main=0.0625, aux=0.0625),
}
"""Each method's published bundle, as on Cityscapes; `none` is the undistilled student."""


@dataclass(frozen=True)
class Variant:
    """A method's bundle for some datasets, for students without an auxiliary head, or for pictures that partly lack labels.

    why: a sentence.
    """

    method: Method
    distiller: DistillerSpec
    why: str
    datasets: tuple[str, ...] = ()
    aux: bool | None = None
    labelled: bool = True
    """Whether every picture has a label."""

    def fits(self, method: Method, dataset: str, aux: bool, labelled: bool) -> bool:
        return (
            self.method == method
            and (not self.datasets or dataset in self.datasets)
            and self.aux in (None, aux)
            and (self.labelled or not labelled)
        )


VARIANTS = (
    Variant(
        "cirkd",
        DistillerSpec(terms=(term.PixelKLSpec(), term.CrossImageSpec(), term.MemorySpec(pixel_weight=0.01, region_weight=0.01))),
        "on voc, cirkd was published with memory weights 0.01; elsewhere they are 0.1",
        datasets=("voc", "voc-sbd-wins"),
    ),
    Variant(
        "maskd",
        DistillerSpec(terms=(term.MaskedSpec(),)),
        "this student has no auxiliary head, so maskd compares only the main logits, as published for MobileNetV2",
        aux=False,
    ),
    Variant(
        "dsd",
        DistillerSpec(terms=(term.DoubleSimilaritySpec(),)),
        "this student has no auxiliary head, so dsd takes the main logits twice, as published for MobileNetV2",
        aux=False,
    ),
    Variant(
        "dist",
        DistillerSpec(terms=(term.RelationSpec(),)),
        "this student has no auxiliary head, so dist compares only the main logits",
        aux=False,
    ),
    Variant(
        "jml",
        _jml("all", main=0.5, aux=0.25),
        "a part of the pictures has no label (data.labelled), so jml compares all pixels with the teacher, labelled or not, and "
        "its KL terms weigh more: few labels and the IoU term alone leave small classes unlearnt",
        labelled=False,
    ),
)


def require_method(name: str, option: str = "--method") -> None:
    """Refuse a name that is not in METHODS. Raises InputError, which names the option."""
    if name not in METHODS:
        raise InputError(f"{option} '{name}' is not known{did_you_mean(name, list(METHODS))}", f"use one of {', '.join(METHODS)}")


def variant_of(method: Method, dataset: str, aux: bool, labelled: bool = True) -> Variant | None:
    """The variant that replaces METHODS[method] for a student on this dataset, or None.

    aux: whether the student has an auxiliary head.  labelled: whether every training picture has a label.
    """
    return next((variant for variant in VARIANTS if variant.fits(method, dataset, aux, labelled)), None)


def published_bundle(method: Method, dataset: str, aux: bool, labelled: bool = True) -> DistillerSpec | None:
    """The bundle of a method's published number for a student on this dataset; None for `none`. Raises InputError."""
    require_method(method)
    variant = variant_of(method, dataset, aux, labelled)
    return METHODS[method] if variant is None else variant.distiller


def method_of(distiller: DistillerSpec | None) -> str:
    """The published method whose bundle this is: `none` without a distiller, `custom` for a mixture of one's own."""
    known = [*METHODS.items(), *((variant.method, variant.distiller) for variant in VARIANTS)]
    return next((method for method, bundle in known if bundle == distiller), "custom")
