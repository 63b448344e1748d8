"""Pyramid Scene Parsing Network, arXiv:1612.01105."""

import torch
from torch import Tensor, nn

from segctl.models.backbone import Backbone
from segctl.models.heads.base import Head
from segctl.models.heads.blocks import ConvBNReLU, PoolingBranch, init_decoder
from segctl.models.heads.widths import Widths
from segctl.schema.models import ModelSpec


class PSPNetHead(Head):
    """The last map beside its averages over 1, 2, 3 and 6 bins a side, merged by one 3×3 convolution.

    Each bin goes to `width` channels (the paper: a quarter of the map's). Returns (B, width, h, w) at the last map's size.
    """

    def __init__(self, in_channels: int, width: int, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.out_channels = width
        self.branches = nn.ModuleList(PoolingBranch(in_channels, width, bin_px) for bin_px in bins)
        self.merge = ConvBNReLU(in_channels + len(bins) * width, width, 3)
        init_decoder(self)

    @staticmethod
    def of(spec: ModelSpec, backbone: Backbone, widths: Widths) -> "PSPNetHead":
        return PSPNetHead(backbone.channels[-1], spec.width or widths.head)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        last = maps[-1]
        pyramid: Tensor = self.merge(torch.cat([last, *(branch(last) for branch in self.branches)], dim=1))
        return pyramid
