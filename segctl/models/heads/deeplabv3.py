"""DeepLabV3: atrous spatial pyramid pooling, arXiv:1706.05587."""

import torch
from torch import Tensor, nn

from segctl.models.backbone import Backbone
from segctl.models.heads.base import Head
from segctl.models.heads.blocks import ConvBNReLU, PoolingBranch, init_decoder
from segctl.models.heads.widths import Widths
from segctl.schema.models import RATES, ModelSpec


class DeepLabV3Head(Head):
    """Image pooling, 1×1 and three dilated 3×3 branches side by side on the last map, merged by one 3×3 convolution.

    The paper merges by 1×1 and adds a 3×3; here one 3×3 does both. Returns (B, width, h, w) at the last map's size.
    """

    def __init__(self, in_channels: int, width: int, rates: tuple[int, ...] = RATES) -> None:
        super().__init__()
        self.out_channels = width
        self.branches = nn.ModuleList(
            [
                PoolingBranch(in_channels, width),
                ConvBNReLU(in_channels, width),
                *(ConvBNReLU(in_channels, width, 3, dilation=rate) for rate in rates),
            ]
        )
        self.merge = ConvBNReLU(len(self.branches) * width, width, 3)
        init_decoder(self)

    @staticmethod
    def of(spec: ModelSpec, backbone: Backbone, widths: Widths) -> "DeepLabV3Head":
        return DeepLabV3Head(backbone.channels[-1], spec.width or widths.head, spec.rates or RATES)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        merged: Tensor = self.merge(torch.cat([branch(maps[-1]) for branch in self.branches], dim=1))
        return merged
