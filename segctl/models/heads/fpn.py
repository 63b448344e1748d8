"""The semantic branch of Panoptic Feature Pyramid Networks, arXiv:1901.02446, section 3.1 and figure 3."""

import math

from torch import Tensor, nn

from segctl.models.backbone import Backbone
from segctl.models.heads.base import Head, from_stride_4
from segctl.models.heads.blocks import init_decoder
from segctl.models.heads.widths import Widths
from segctl.models.outputs import upsample
from segctl.schema.models import ModelSpec


class FPNHead(Head):
    """A pyramid of maps of `2·width` channels, each brought to stride 4 in steps of 2 and added up.

    channels, strides: of the maps from stride 4 on, finest first. A step is 3×3, group norm, ReLU, twice the size; the map of
    stride 4 takes one 3×3. Returns (B, width, H/4, W/4). The paper's widths are 256 and 128.
    The paper's pyramid grows by nearest neighbours; here every resizing is bilinear.
    """

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.out_channels = width
        self.strides = strides
        self.lateral = nn.ModuleList(nn.Conv2d(channel, 2 * width, 1) for channel in channels)
        self.levels = nn.ModuleList(
            nn.ModuleList(
                _ConvGNReLU(2 * width if step == 0 else width, width) for step in range(max(1, int(math.log2(stride // 4))))
            )
            for stride in strides
        )
        init_decoder(self)

    @staticmethod
    def of(spec: ModelSpec, backbone: Backbone, widths: Widths) -> "FPNHead":
        return FPNHead(*from_stride_4(spec, backbone), spec.width or 128)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        used = maps[-len(self.strides) :]
        pyramid = [lateral(x) for lateral, x in zip(self.lateral, used, strict=True)]
        for finer, coarser in zip(reversed(range(len(pyramid) - 1)), reversed(range(1, len(pyramid))), strict=True):
            pyramid[finer] = pyramid[finer] + upsample(pyramid[coarser], _size_of(pyramid[finer]))
        total: Tensor | None = None
        for x, steps, stride in zip(pyramid, self.levels, self.strides, strict=True):
            assert isinstance(steps, nn.ModuleList)  # the outer ModuleList forgets the type of what it holds
            for step in steps:
                stride = max(4, stride // 2)
                x = upsample(step(x), ((size[0] + stride - 1) // stride, (size[1] + stride - 1) // stride))
            total = x if total is None else total + x
        assert total is not None
        return total


class _ConvGNReLU(nn.Sequential):
    """3×3, group norm, ReLU: (B, in, H, W) -> (B, out, H, W). Up to 32 groups of at least 4 channels, as 128 channels have."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        groups = math.gcd(32, out_channels // 4) if out_channels % 4 == 0 else 1
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.GroupNorm(groups, out_channels),
            nn.ReLU(inplace=True),
        )


def _size_of(x: Tensor) -> tuple[int, int]:
    return x.shape[-2], x.shape[-1]
