"""What a run reads: dataset, splits, augmentation; and how labels are softened."""

from typing import Annotated, Literal

from pydantic import Field

from segctl.schema.spec import Spec

Pixels = Annotated[int, Field(ge=1, le=65_536)]
Size = tuple[Pixels, Pixels]
Positive = Annotated[float, Field(gt=0, le=1000)]
"""A scale of an image."""


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
    scale: tuple[Positive, Positive] = (0.5, 2.0)
    """Smallest and largest random scale; the scale is drawn uniformly between them."""
    scale_step: Positive | None = None
    """Draw only the smallest scale plus whole multiples of this; null: any scale between."""
    padding: Literal["centre", "end"] = "centre"
    """Where an image smaller than the crop is padded: on all sides, or at the bottom and right."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    workers: int | None = Field(None, ge=0, le=512)
    """Loader processes; null: segctl chooses by the number of cores."""


class HardLabels(Spec):
    """Labels as they are."""

    kind: Literal["hard"] = "hard"


class SmoothedLabels(Spec):
    """(1 - epsilon) on the true class plus epsilon spread evenly over all classes, at every valid pixel."""

    kind: Literal["smoothed"] = "smoothed"
    epsilon: float = Field(0.1, gt=0, lt=1)
    """Probability mass that is spread."""


class BoundaryLabels(Spec):
    """Label smoothing on boundary pixels only (arXiv:2302.05666)."""

    kind: Literal["boundary"] = "boundary"
    epsilon: float = Field(0.5, gt=0, lt=1)
    """Probability mass that is spread at a boundary pixel."""
    kernel_size: int = Field(3, ge=3)
    """Odd window, in pixels: a pixel is on a boundary where its window holds another class."""


LabelSpec = Annotated[HardLabels | SmoothedLabels | BoundaryLabels, Field(discriminator="kind")]
