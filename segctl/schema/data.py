"""What a run reads: dataset, splits, augmentation."""

from typing import Annotated, Literal

from pydantic import Field

from segctl.schema.spec import Spec

Pixels = Annotated[int, Field(ge=1, le=65_536)]
Size = tuple[Pixels, Pixels]
ImageScale = Annotated[float, Field(gt=0, le=1000)]
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
    scale: tuple[ImageScale, ImageScale] = (0.5, 2.0)
    """Smallest and largest random scale; the scale is drawn uniformly between them."""
    scale_step: ImageScale | None = None
    """Draw only the smallest scale plus whole multiples of this; null: any scale between."""
    padding: Literal["centre", "end"] = "centre"
    """Where an image smaller than the crop is padded: on all sides, or at the bottom and right."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    workers: int | None = Field(None, ge=0, le=512)
    """Loader processes; null: segctl chooses by the number of cores."""
