"""PSPNet and DeepLabV3 as CIRKD's code builds them, for `model.family: cirkd` (winycg/CIRKD at 2d8ad0f, models/).

They differ from this package's own heads of the same papers in width and in what merges the branches, not in the idea.
"""

import torch
from torch import Tensor, nn

from segctl.models.backbone import Backbone
from segctl.models.heads.base import Head
from segctl.models.heads.blocks import ConvBNReLU, PoolingBranch
from segctl.models.heads.widths import Widths
from segctl.schema.models import ModelSpec

ASPP_DROPOUT = 0.5


class CirkdPSPHead(Head):
    """The last map beside its averages over 1, 2, 3 and 6 bins a side, a quarter of its channels each, merged by one 3×3.

    Returns (B, width, h, w) at the last map's size; width 128, or 512 on a map of 2048 channels (models/pspnet.py).
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.out_channels = width
        self.branches = nn.ModuleList(
            PoolingBranch(in_channels, in_channels // 4, bin_px, align_corners=True) for bin_px in (1, 2, 3, 6)
        )
        self.merge = ConvBNReLU(2 * in_channels, width, 3)

    @staticmethod
    def of(spec: ModelSpec, backbone: Backbone, widths: Widths) -> "CirkdPSPHead":
        return CirkdPSPHead(backbone.channels[-1], spec.width or (512 if backbone.channels[-1] >= 1024 else 128))

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        last = maps[-1]
        merged: Tensor = self.merge(torch.cat([last, *(branch(last) for branch in self.branches)], dim=1))
        return merged


class CirkdDeepLabV3Head(Head):
    """1×1, three dilated 3×3 and image pooling side by side, projected by 1×1, dropout of half the values, one 3×3.

    Returns (B, width, h, w) at the last map's size; width 128, or 256 on a map of 2048 channels (models/deeplabv3.py).
    """

    def __init__(self, in_channels: int, width: int) -> None:
        super().__init__()
        self.out_channels = width
        self.branches = nn.ModuleList(
            [
                ConvBNReLU(in_channels, width),
                *(ConvBNReLU(in_channels, width, 3, dilation=rate) for rate in (12, 24, 36)),
                PoolingBranch(in_channels, width),
            ]
        )
        self.project = ConvBNReLU(5 * width, width)
        self.dropout = nn.Dropout(ASPP_DROPOUT)
        self.merge = ConvBNReLU(width, width, 3)

    @staticmethod
    def of(spec: ModelSpec, backbone: Backbone, widths: Widths) -> "CirkdDeepLabV3Head":
        return CirkdDeepLabV3Head(backbone.channels[-1], spec.width or (256 if backbone.channels[-1] >= 1024 else 128))

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        joined = torch.cat([branch(maps[-1]) for branch in self.branches], dim=1)
        merged: Tensor = self.merge(self.dropout(self.project(joined)))
        return merged
