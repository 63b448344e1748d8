"""A linear head: batch norm and the classifier alone, as the features of foundation models are judged by.

Source: arXiv:2304.07193, section 7.4, and the BNHead of facebookresearch/dinov2, dinov2/eval/segmentation/models/decode_heads.
"""

from torch import Tensor, nn

from segctl.models.backbone import Backbone
from segctl.models.heads.base import Head
from segctl.models.heads.widths import Widths
from segctl.schema.models import ModelSpec


class LinearHead(Head):
    """Batch norm of the last map; the 1×1 behind it is the network's classifier. Returns (B, in_channels, h, w)."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.out_channels = in_channels
        self.norm = nn.BatchNorm2d(in_channels)

    @staticmethod
    def of(spec: ModelSpec, backbone: Backbone, widths: Widths) -> "LinearHead":
        return LinearHead(backbone.channels[-1])

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        features: Tensor = self.norm(maps[-1])
        return features
