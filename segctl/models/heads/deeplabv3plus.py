"""DeepLabV3+: atrous pyramid with separable convolutions, and a decoder that sees a finer map, arXiv:1802.02611."""

import torch
from torch import Tensor, nn

from segctl.models.backbone import Backbone
from segctl.models.heads.base import Head, unsuitable
from segctl.models.heads.blocks import ConvBNReLU, PoolingBranch, init_decoder
from segctl.models.heads.widths import Widths
from segctl.models.outputs import upsample
from segctl.schema.models import RATES, ModelSpec


class SeparableConv(nn.Sequential):
    """Depthwise convolution, batch norm, ReLU, then 1×1, batch norm, ReLU: (B, in, H, W) -> (B, out, H, W)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, dilation: int = 1) -> None:
        super().__init__(
            ConvBNReLU(in_channels, in_channels, kernel_size, dilation, groups=in_channels),
            ConvBNReLU(in_channels, out_channels),
        )


class DeepLabV3PlusHead(Head):
    """DeepLabV3's pyramid on the last map (all but its pooling branch separable), joined with the map of stride 4.

    fine_index: the place of the stride-4 map among the backbone's. fine_channels: its channels, reduced to `shortcut`.
    Returns (B, width, H/4, W/4).
    """

    def __init__(
        self,
        in_channels: int,
        fine_channels: int,
        fine_index: int,
        width: int,
        shortcut: int,
        rates: tuple[int, ...] = RATES,
    ) -> None:
        super().__init__()
        self.out_channels = width
        self.fine_index = fine_index
        self.branches = nn.ModuleList(
            [
                PoolingBranch(in_channels, width),
                SeparableConv(in_channels, width, 1),
                *(SeparableConv(in_channels, width, 3, dilation=rate) for rate in rates),
            ]
        )
        self.merge = ConvBNReLU(len(self.branches) * width, width, 3)
        self.shortcut = ConvBNReLU(fine_channels, shortcut)
        self.decoder = nn.Sequential(SeparableConv(width + shortcut, width, 3), SeparableConv(width, width, 3))
        init_decoder(self)

    @staticmethod
    def of(spec: ModelSpec, backbone: Backbone, widths: Widths) -> "DeepLabV3PlusHead":
        if 4 not in backbone.strides:
            raise unsuitable(spec, backbone, "a map of stride 4")
        channels, fine = backbone.channels, backbone.strides.index(4)
        width, rates = spec.width or widths.head, spec.rates or RATES
        return DeepLabV3PlusHead(channels[-1], channels[fine], fine, width, widths.shortcut, rates)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        merged = self.merge(torch.cat([branch(maps[-1]) for branch in self.branches], dim=1))
        fine = self.shortcut(maps[self.fine_index])
        decoded: Tensor = self.decoder(torch.cat([upsample(merged, (fine.shape[-2], fine.shape[-1])), fine], dim=1))
        return decoded
