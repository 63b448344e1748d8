"""What a segmentation head is."""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from segctl.errors import InputError
from segctl.models.backbone import Backbone
from segctl.models.heads.widths import Widths
from segctl.schema.models import ModelSpec


class Head(nn.Module, ABC):
    """The backbone's maps in, one map of features for the classifier out."""

    out_channels: int
    """Channels of the features; set in __init__."""

    @staticmethod
    @abstractmethod
    def of(spec: ModelSpec, backbone: Backbone, widths: Widths) -> "Head":
        """The head of a preset's model block on this backbone. Raises InputError, by `unsuitable`, if they do not go together.

        widths: the reference's for this backbone. `spec.width`, where it is set, replaces `widths.head`.
        """

    @abstractmethod
    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """maps: (B, D_i, ⌈H/stride_i⌉, ⌈W/stride_i⌉), finest first; size: the image's (H, W). Returns (B, out_channels, h, w).

        Only a head that ends at full resolution needs `size`.
        """


def unsuitable(spec: ModelSpec, backbone: Backbone, wanted: str) -> InputError:
    """The error of a head on a backbone without the maps that it needs."""
    strides = ", ".join(map(str, backbone.strides))
    return InputError(
        f"model.head: '{spec.head}' wants {wanted}, got strides {strides} from '{spec.backbone}'",
        "change model.output_stride (32 for unet) or model.backbone, or use `--set model.head=deeplabv3`",
    )


def from_stride_4(spec: ModelSpec, backbone: Backbone) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Channels and strides of the backbone's maps from stride 4 on, finest first; InputError if none has stride 4."""
    chosen = [(channel, stride) for channel, stride in zip(backbone.channels, backbone.strides, strict=True) if stride >= 4]
    if len(chosen) < 2 or chosen[0][1] != 4:
        raise unsuitable(spec, backbone, "a map of stride 4 and coarser ones")
    return tuple(channel for channel, _ in chosen), tuple(stride for _, stride in chosen)
