"""What a run reads: dataset, splits, augmentation."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from segctl.schema.spec import Spec

Pixels = Annotated[int, Field(ge=1, le=65_536)]
Size = tuple[Pixels, Pixels]
ImageScale = Annotated[float, Field(gt=0, le=1000)]
"""A scale of an image."""


Probability = Annotated[float, Field(ge=0, le=1)]
Jitter = Annotated[float, Field(ge=0, le=1)]
"""How far a factor may lie from 1, on either side."""
ClassNames = Annotated[tuple[str, ...], Field(min_length=1)]


class AugmentSpec(Spec):
    """The base of every operation of `data.augment`. `segctl.data.batches.augment` performs them."""

    kind: str
    probability: Probability = 1.0
    """How often the operation is applied to a view."""

    @field_validator("sigma", "std", "quality", "size", check_fields=False)
    @classmethod
    def _rises(cls, value: tuple[Any, Any]) -> tuple[Any, Any]:
        if value[0] > value[1]:
            raise PydanticCustomError("falling", "wanted the smaller number first")
        return value


class ColorSpec(AugmentSpec):
    """Change brightness, contrast, saturation and hue."""

    kind: Literal["color"] = "color"
    brightness: Jitter = 0.4
    """Pixels are multiplied by 1 ± this."""
    contrast: Jitter = 0.4
    """The distance from the mean grey is multiplied by 1 ± this."""
    saturation: Jitter = 0.4
    """The saturation (of HSV) is multiplied by 1 ± this."""
    hue: float = Field(0.05, ge=0, le=0.5)
    """The hue turns by at most this share of the whole circle, either way."""


class BlurSpec(AugmentSpec):
    """Blur by a Gaussian."""

    kind: Literal["blur"] = "blur"
    probability: Probability = 0.2
    """How often the operation is applied to a view."""
    sigma: tuple[Annotated[float, Field(gt=0, le=50)], Annotated[float, Field(gt=0, le=50)]] = (0.1, 2.0)
    """Smallest and largest standard deviation, in pixels."""


class NoiseSpec(AugmentSpec):
    """Add Gaussian noise to every pixel and channel."""

    kind: Literal["noise"] = "noise"
    probability: Probability = 0.2
    """How often the operation is applied to a view."""
    std: tuple[Annotated[float, Field(ge=0, le=255)], Annotated[float, Field(ge=0, le=255)]] = (0.0, 10.0)
    """Smallest and largest standard deviation, in grey levels of 0 to 255."""


class JpegSpec(AugmentSpec):
    """Compress as JPEG and decode again."""

    kind: Literal["jpeg"] = "jpeg"
    probability: Probability = 0.2
    """How often the operation is applied to a view."""
    quality: tuple[Annotated[int, Field(ge=1, le=100)], Annotated[int, Field(ge=1, le=100)]] = (40, 95)
    """Lowest and highest quality."""


class GreySpec(AugmentSpec):
    """Turn the picture grey."""

    kind: Literal["grey"] = "grey"
    probability: Probability = 0.1
    """How often the operation is applied to a view."""


class VerticalFlipSpec(AugmentSpec):
    """Turn the picture upside down by mirroring it, as for pictures from above."""

    kind: Literal["vertical_flip"] = "vertical_flip"
    probability: Probability = 0.5
    """How often the operation is applied to a view."""


class AffineSpec(AugmentSpec):
    """Rotate, shift and shear around the centre; what comes from outside is padding, and its label is ignored."""

    kind: Literal["affine"] = "affine"
    probability: Probability = 0.5
    """How often the operation is applied to a view."""
    degrees: float = Field(10.0, ge=0, le=180)
    """The largest rotation, either way."""
    translate: float = Field(0.0, ge=0, le=1)
    """The largest shift, as a share of the crop's side."""
    shear: float = Field(0.0, ge=0, le=60)
    """The largest shear along the rows, in degrees, either way."""


class CutoutSpec(AugmentSpec):
    """Cover rectangles, whose labels are ignored (arXiv:1708.04552)."""

    kind: Literal["cutout"] = "cutout"
    probability: Probability = 0.5
    """How often the operation is applied to a view."""
    holes: int = Field(1, ge=1, le=64)
    """The number of rectangles."""
    size: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] = (0.1, 0.3)
    """Smallest and largest side of a rectangle, as a share of the crop's side."""


class ClassCropSpec(AugmentSpec):
    """Place the crop on a pixel of a class that the picture shows; the rarer a class in the split, the likelier it is chosen."""

    kind: Literal["class_crop"] = "class_crop"
    probability: Probability = 0.5
    """How often the operation is applied to a view."""
    classes: ClassNames | None = None
    """Choose among these classes; null: among all."""


class CopyPasteSpec(AugmentSpec):
    """Copy the pixels of a class from another picture of the split; the rarer a class, the likelier (as arXiv:2012.07177)."""

    kind: Literal["copy_paste"] = "copy_paste"
    probability: Probability = 0.3
    """How often the operation is applied to a view."""
    classes: ClassNames | None = None
    """Choose among these classes; null: among all."""


AugmentStep = Annotated[
    ColorSpec
    | BlurSpec
    | NoiseSpec
    | JpegSpec
    | GreySpec
    | VerticalFlipSpec
    | AffineSpec
    | CutoutSpec
    | ClassCropSpec
    | CopyPasteSpec,
    Field(discriminator="kind"),
]


class UnlabelledSpec(Spec):
    """Pictures without labels in every batch, from which a teacher teaches, or the network itself (semi)."""

    split: str | None = "unlabelled"
    """The split whose pictures are mixed in; labels that it may have are not read. null: only the pictures whose labels
    data.labelled hides. With a split, those are mixed in too."""
    per_batch: int = Field(ge=1, le=65_536)
    """How many of them a batch has beside its train.batch_size labelled pictures."""


class DataSpec(Spec):
    """The samples of a run and the random view of each."""

    dataset: str = Field(min_length=1)
    """A prepared dataset's name: `segctl data list` shows them."""
    train_split: str = "train"
    """The split for training."""
    val_split: str = "val"
    """The split for validation; never used for training."""
    crop: Size
    """Height and width of a training crop, in pixels."""
    scale: tuple[ImageScale, ImageScale] = (0.5, 2.0)
    """Smallest and largest random scale; the scale is drawn uniformly between them."""
    scale_step: ImageScale | None = None
    """Draw only the smallest scale plus whole multiples of this; null: any scale between."""
    padding: Literal["centre", "end"] = "centre"
    """Where an image smaller than the crop is padded: on all sides, or at the bottom and right."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    augment: Annotated[tuple[AugmentStep, ...], Field(max_length=32)] = ()
    """Further operations on a view, in this order."""
    labelled: float = Field(1.0, gt=0, le=1)
    """Share of the training pictures whose labels are used. The others are left out, unless data.unlabelled mixes them in.
    The choice depends only on the pictures' names, so every seed and method has the same labels."""
    unlabelled: UnlabelledSpec | None = None
    """Mix pictures without labels into every batch; null: a batch is train.batch_size labelled pictures of data.train_split."""
    workers: int | None = Field(None, ge=0, le=512)
    """Loader processes; null: segctl chooses by the number of cores."""
