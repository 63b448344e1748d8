"""Unified Perceptual Parsing: PSPNet's pooling on top of a feature pyramid, arXiv:1807.10221, section 3.1."""

import torch
from torch import Tensor, nn

from segctl.models.backbone import Backbone
from segctl.models.heads.base import Head, from_stride_4
from segctl.models.heads.blocks import ConvBNReLU, PoolingBranch, init_decoder
from segctl.models.heads.widths import Widths
from segctl.models.outputs import upsample
from segctl.schema.models import ModelSpec


class UPerNetHead(Head):
    """Pooling pyramid of the last map, added down the maps to stride 4; all levels resized there and merged by one 3×3.

    channels: of the maps from stride 4 on, finest first. Returns (B, width, H/4, W/4). The paper's width is 512; the default is
    that of this backbone's other heads.
    """

    def __init__(self, channels: tuple[int, ...], width: int, bins: tuple[int, ...] = (1, 2, 3, 6)) -> None:
        super().__init__()
        self.out_channels = width
        *finer, last = channels
        self.branches = nn.ModuleList(PoolingBranch(last, width, bin_px) for bin_px in bins)
        self.top = ConvBNReLU(last + len(bins) * width, width, 3)
        self.lateral = nn.ModuleList(ConvBNReLU(channel, width) for channel in finer)
        self.smooth = nn.ModuleList(ConvBNReLU(width, width, 3) for _ in finer)
        self.merge = ConvBNReLU(len(channels) * width, width, 3)
        init_decoder(self)

    @staticmethod
    def of(spec: ModelSpec, backbone: Backbone, widths: Widths) -> "UPerNetHead":
        return UPerNetHead(from_stride_4(spec, backbone)[0], spec.width or widths.head)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        *finer, last = maps[-(len(self.lateral) + 1) :]
        x = self.top(torch.cat([last, *(branch(last) for branch in self.branches)], dim=1))
        levels = [x]
        for lateral, smooth, fine in reversed([*zip(self.lateral, self.smooth, finer, strict=True)]):
            x = lateral(fine) + upsample(x, (fine.shape[-2], fine.shape[-1]))
            levels.append(smooth(x))
        size_4 = (levels[-1].shape[-2], levels[-1].shape[-1])
        merged: Tensor = self.merge(torch.cat([upsample(level, size_4) for level in reversed(levels)], dim=1))
        return merged
