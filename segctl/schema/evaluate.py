"""How a run is scored."""

from typing import Annotated, Literal

from pydantic import Field

from segctl.schema.data import Positive, Size
from segctl.schema.spec import Spec


class WholeProtocol(Spec):
    """Every image in one piece, at its own size."""

    kind: Literal["whole"] = "whole"


class SlidingProtocol(Spec):
    """Overlapping tiles; logits are averaged where tiles overlap. Smaller images are padded to one tile."""

    kind: Literal["sliding"] = "sliding"
    tile: Size
    """Height and width of a tile, in pixels."""
    stride: float = Field(2 / 3, gt=0, le=1)
    """Distance between tiles, as a share of the tile, rounded up to whole pixels."""


ProtocolSpec = Annotated[WholeProtocol | SlidingProtocol, Field(discriminator="kind")]


class EvaluateSpec(Spec):
    """Evaluation protocol; scores are always counted at the label's own size."""

    protocol: ProtocolSpec = WholeProtocol()
    """Whole image or sliding window."""
    scales: tuple[Positive, ...] = Field((1.0,), min_length=1)
    """Image scales whose probabilities are averaged."""
    flip: bool = False
    """Whether the mirrored image is averaged in as well."""
