"""What a student learns from its teacher: weighted terms, and the published methods as bundles of terms."""

from dataclasses import dataclass

from pydantic import Field

from segctl.errors import InputError, did_you_mean
from segctl.schema.data import ImageScale
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
    overlap: bool = False
    """On a GPU, run the teacher beside the student's forward pass and not after it, each on a CUDA stream of its own. The memory
    of the teacher's pass then comes on top. Not with train.deterministic, which turns it off."""
    weights: tuple[term.Positive, ...] | None = Field(None, min_length=2)
    """How much each of several --teacher counts in the mean of their probabilities; null: all equally."""
    scales: tuple[ImageScale, ...] = Field((1.0,), min_length=1)
    """Image scales whose probabilities the teacher averages; 1 must be among them."""
    flip: bool = False
    """Whether the teacher averages in the mirrored image as well. It then runs twice as often."""

    @property
    def averages_views(self) -> bool:
        """Whether it sees an image more than once."""
        return self.scales != (1.0,) or self.flip


Method = str
"""A key of METHODS, which is the only list of the methods."""


def _jml(pixels: term.Compared, main: float, aux: float | None) -> DistillerSpec:
    """aux: the weight of the term on auxiliary logits; None leaves it out."""
    kl = [term.SoftKLSpec(logits="main", weight=main, pixels=pixels)]
    if aux is not None:
        kl.append(term.SoftKLSpec(logits="aux", weight=aux, pixels=pixels))
    return DistillerSpec(label_weight=0.5, terms=(*kl, term.SoftJDTSpec(logits="main", weight=0.375, smooth=1.0, pixels=pixels)))


def _afdcd(features: float = 33.6, contrast: float = 0.005, kd: float = 1.0, pool: int = 4, plain: bool = False) -> DistillerSpec:
    omni = term.OmniContrastSpec(
        features_weight=features, contrast_weight=contrast, pool=pool, generator="plain" if plain else "enhanced"
    )
    return DistillerSpec(terms=(term.PixelKLSpec(weight=kd), omni))


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
    "dkd": DistillerSpec(terms=(term.DecoupledSpec(),)),
    "lskd": DistillerSpec(terms=(term.StandardisedSpec(),)),
    "mgd": DistillerSpec(terms=(term.MaskedGenerationSpec(), term.ChannelSpec())),
    "afdcd": _afdcd(),
    "cirkdv2": DistillerSpec(
        terms=(
            term.PixelKLSpec(),
            term.CrossImageSpec(),
            term.MemorySpec(),
            term.HintSpec(weight=1.0),
            term.CrossChannelSpec(),
        )
    ),
}
"""Each method's published bundle, as on Cityscapes; `none` is the undistilled student."""


@dataclass(frozen=True)
class Variant:
    """A method's bundle for some datasets, for students without an auxiliary head, or if some pictures have no label.

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


_FEW_LABELS = (
    "a part of the pictures has no label (data.labelled), so jml compares all pixels with the teacher, labelled or not, and "
    "its KL terms weigh more: few labels and the IoU term alone leave small classes unlearnt"
)

VARIANTS = (
    Variant(
        "cirkd",
        DistillerSpec(terms=(term.PixelKLSpec(), term.CrossImageSpec(), term.MemorySpec(pixel_weight=0.01, region_weight=0.01))),
        "on voc, cirkd was published with memory weights 0.01; elsewhere they are 0.1",
        datasets=("voc", "voc-sbd-wins"),
    ),
    Variant(
        "afdcd",
        _afdcd(33.2, 0.01, pool=1, plain=True),
        "on camvid, afdcd was published with weights 33.2 and 0.01 (as a mean), no pooling and the plain generator",
        datasets=("camvid",),
    ),
    Variant(
        "afdcd",
        _afdcd(8.4, plain=True),
        "on voc, afdcd was published with weight 8.4 of the features (as a mean) and the plain generator",
        datasets=("voc", "voc-sbd-wins"),
    ),
    Variant(
        "afdcd",
        _afdcd(8.4, 0.04, kd=0.5, plain=True),
        "on ade20k, afdcd was published with weights 8.4 (as a mean) and 0.04, half of KD and the plain generator",
        datasets=("ade20k",),
    ),
    Variant(
        "afdcd",
        _afdcd(41.9, kd=0.5, plain=True),
        "on coco-stuff, afdcd was published with weight 41.9 of the features (as a mean), half of KD and the plain generator",
        datasets=("coco-stuff",),
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
        _jml("all", main=0.5, aux=None),
        f"this student has no auxiliary head, so jml compares only the main logits; {_FEW_LABELS}",
        aux=False,
        labelled=False,
    ),
    Variant(
        "jml",
        _jml("labelled", main=0.0625, aux=None),
        "this student has no auxiliary head, so jml compares only the main logits",
        aux=False,
    ),
    Variant("jml", _jml("all", main=0.5, aux=0.25), _FEW_LABELS, labelled=False),
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
