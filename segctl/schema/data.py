"""What a run reads: dataset, splits, augmentation."""

from typing import Annotated, Literal

from pydantic import Field

from segctl.schema.spec import Spec

Pixels = Annotated[int, Field(ge=1)]
Size = tuple[Pixels, Pixels]
Positive = Annotated[float, Field(gt=0)]


class DataSpec(Spec):
    """The samples of a run and the random view taken of each."""

    dataset: str = Field(min_length=1)
    """A prepared dataset's name: `segctl data list` shows them."""
    train_split: str = "train"
    """The split that is trained on."""
    val_split: str = "val"
    """The split that is validated on; never trained on."""
    crop: Size
    """Height and width of a training crop, in pixels."""
    scale: tuple[Positive, Positive] = (0.5, 2.0)
    """Smallest and largest random scale, drawn uniformly."""
    scale_step: Positive | None = None
    """Draw only the smallest scale plus whole multiples of this; null draws any scale between."""
    padding: Literal["centre", "end"] = "centre"
    """Where a picture smaller than the crop is padded: around it, or at the bottom and right."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability of a horizontal flip."""
    workers: int | None = Field(None, ge=0)
    """Loader processes; null lets segctl choose from the cores there are."""
