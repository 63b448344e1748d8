"""SegFormer's decoder of linear layers alone, arXiv:2105.15203, section 3.2."""

import torch
from torch import Tensor, nn

from segctl.models.backbone import Backbone
from segctl.models.head_widths import Widths
from segctl.models.heads.base import Head, from_stride_4
from segctl.models.heads.blocks import ConvBNReLU, init_decoder
from segctl.models.outputs import upsample
from segctl.schema.models import ModelSpec


class SegFormerHead(Head):
    """A linear layer for each map from stride 4 on, all resized to stride 4, merged by one more.

    channels: of those maps, finest first. Returns (B, width, H/4, W/4). The width is 256 as for the paper's MiT-B0 and B1; B2 to
    B5 take 768. Batch norm and ReLU after the merging layer are those of the authors' code.
    """

    def __init__(self, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.out_channels = width
        self.linear = nn.ModuleList(nn.Conv2d(channel, width, 1) for channel in channels)
        self.merge = ConvBNReLU(len(channels) * width, width)
        init_decoder(self)

    @staticmethod
    def of(spec: ModelSpec, backbone: Backbone, widths: Widths) -> "SegFormerHead":
        return SegFormerHead(from_stride_4(spec, backbone)[0], spec.width or 256)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        used = maps[-len(self.linear) :]
        fine = (used[0].shape[-2], used[0].shape[-1])
        # Coarsest first, as in the authors' code, so that their weights fit.
        resized = [upsample(linear(x), fine) for linear, x in zip(self.linear, used, strict=True)][::-1]
        merged: Tensor = self.merge(torch.cat(resized, dim=1))
        return merged
