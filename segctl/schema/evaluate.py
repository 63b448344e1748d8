"""How a run is scored."""

import hashlib
import re
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from segctl.errors import InputError, did_you_mean
from segctl.schema.data import ImageScale, Size
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
    """Distance between tiles, as a fraction of the tile, rounded up to whole pixels."""


ProtocolSpec = Annotated[WholeProtocol | SlidingProtocol, Field(discriminator="kind")]


class EvaluateSpec(Spec):
    """Evaluation protocol; scores are always counted at the label's own size."""

    protocol: ProtocolSpec = WholeProtocol()
    """Whole image or sliding window."""
    scales: tuple[ImageScale, ...] = Field((1.0,), min_length=1)
    """Image scales whose probabilities are averaged."""
    flip: bool = False
    """Whether the mirrored image is averaged in as well."""


@dataclass(frozen=True)
class ProtocolChange:
    """Changes of a run's own protocol by command-line options; None changes nothing.

    protocol: `whole` or `sliding`.  tile: `512x1024`.  scales: `0.75,1,1.25`.
    """

    protocol: str | None = None
    tile: str | None = None
    stride: float | None = None
    scales: str | None = None
    flip: bool | None = None

    def apply(self, spec: EvaluateSpec, crop: tuple[int, int]) -> EvaluateSpec:
        """The changed protocol. Without a tile size, sliding uses the training crop. Raises InputError."""
        changed: dict[str, object] = {"protocol": self._place(spec.protocol, crop)}
        if self.scales is not None:
            changed["scales"] = _scales(self.scales)
        if self.flip is not None:
            changed["flip"] = self.flip
        return spec.model_copy(update=changed)

    def _place(self, spec: WholeProtocol | SlidingProtocol, crop: tuple[int, int]) -> WholeProtocol | SlidingProtocol:
        kind = spec.kind if self.protocol is None else self.protocol
        if kind not in ("whole", "sliding"):
            near = did_you_mean(kind, ["whole", "sliding"])
            raise InputError(f"--protocol '{kind}' is not known{near}", "use whole or sliding")
        if kind == "whole":
            if self.tile is not None or self.stride is not None:
                raise InputError(
                    "--tile and --stride belong to the sliding protocol", "add --protocol sliding, or leave them out"
                )
            return WholeProtocol()
        base = spec if isinstance(spec, SlidingProtocol) else SlidingProtocol(tile=crop)
        stride = base.stride if self.stride is None else self.stride
        if not 0 < stride <= 1:
            raise InputError(
                f"--stride is {stride:g}, wanted a fraction of the tile above 0 and at most 1", "for example --stride 0.5"
            )
        return SlidingProtocol(tile=base.tile if self.tile is None else read_size("--tile", self.tile), stride=stride)


LARGEST_SIDE = 65_536


def read_size(option: str, text: str) -> tuple[int, int]:
    """Height and width of `512x1024`, the value of `option`. Raises InputError."""
    found = re.fullmatch(r"([1-9]\d{0,9})[x×]([1-9]\d{0,9})", text)
    if found is None:
        raise InputError(f"cannot read {option} '{text}'", f"write it as HEIGHTxWIDTH in pixels, such as {option} 512x1024")
    height, width = int(found[1]), int(found[2])
    if max(height, width) > LARGEST_SIDE:
        raise InputError(f"{option} '{text}' has a side of more than {LARGEST_SIDE:,} pixels", f"for example {option} 512x1024")
    return height, width


def _scales(text: str) -> tuple[float, ...]:
    try:
        scales = tuple(float(part) for part in text.split(","))
    except ValueError:
        scales = ()
    if not scales or not all(0 < scale <= 16 for scale in scales) or len(set(scales)) < len(scales):
        raise InputError(
            f"cannot read --scales '{text}'", "write different scales from 0 to 16 with commas, such as --scales 0.75,1,1.25"
        )
    return scales


LONGEST_SLUG = 80


def protocol_in_words(spec: EvaluateSpec) -> str:
    """`whole image, single scale, no flip`, or `sliding 512×1024 tiles, stride 0.6667 of a tile, scales 0.75, 1, with flip`."""
    match spec.protocol:
        case SlidingProtocol(tile=(height, width), stride=stride):
            place = f"sliding {height}×{width} tiles, stride {stride:.4g} of a tile"
        case _:
            place = "whole image"
    scales = "single scale" if spec.scales == (1.0,) else "scales " + ", ".join(f"{scale:g}" for scale in spec.scales)
    return f"{place}, {scales}, {'with' if spec.flip else 'no'} flip"


def protocol_slug(spec: EvaluateSpec) -> str:
    """A protocol as a folder's name: `sliding-512x1024-0.6667+scales-0.75-1+flip`; with a hash where that is too long."""
    match spec.protocol:
        case SlidingProtocol(tile=(height, width), stride=stride):
            parts = [f"sliding-{height}x{width}-{stride:.4g}"]
        case _:
            parts = ["whole"]
    if spec.scales != (1.0,):
        parts.append("scales-" + "-".join(f"{scale:g}" for scale in spec.scales))
    slug = "+".join([*parts, *(["flip"] if spec.flip else [])])
    return slug if len(slug) <= LONGEST_SLUG else f"{parts[0]}+{hashlib.sha256(slug.encode()).hexdigest()[:12]}"
