"""U-Net: back to full resolution in five steps, each with the backbone's map of that size, arXiv:1505.04597."""

import torch
from torch import Tensor, nn

from segctl.models.backbone import Backbone
from segctl.models.heads.base import Head, unsuitable
from segctl.models.heads.blocks import ConvBNReLU, init_decoder
from segctl.models.heads.widths import Widths
from segctl.models.outputs import upsample
from segctl.schema.models import ModelSpec

STEP_STRIDES = (16, 8, 4, 2, 1)


class UNetHead(Head):
    """Five times: resize to the next finer stride, join the backbone's map of that stride if it has one, two 3×3.

    channels, strides: of the backbone's maps, finest first; the last stride is 32. The steps end with base·(16, 8, 4, 2, 1)
    channels. The paper crops maps that do not fit; here the coarse map is resized to the fine one, so any image size works.
    Returns (B, base, H, W).
    """

    def __init__(self, channels: tuple[int, ...], strides: tuple[int, ...], base: int) -> None:
        super().__init__()
        skips = dict(zip(strides, range(len(strides)), strict=True))
        self.skip_indices = [skips.get(stride) for stride in STEP_STRIDES]
        widths = [base * factor for factor in STEP_STRIDES]
        self.out_channels = widths[-1]
        skip_channels = [0 if index is None else channels[index] for index in self.skip_indices]
        self.steps = nn.ModuleList(
            nn.Sequential(ConvBNReLU(coarse + skip, width, 3), ConvBNReLU(width, width, 3))
            for coarse, skip, width in zip([channels[-1], *widths[:-1]], skip_channels, widths, strict=True)
        )
        init_decoder(self)

    @staticmethod
    def of(spec: ModelSpec, backbone: Backbone, widths: Widths) -> "UNetHead":
        strides = backbone.strides
        if strides[-1] != 32 or len(set(strides)) < len(strides):
            raise unsuitable(spec, backbone, "one map for each stride, the last of stride 32")
        # An eighth, so that the reference's widths 128 and 512 give its bases 16 and 64.
        return UNetHead(backbone.channels, strides, base=max(1, (spec.width or widths.head) // 8))

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        x = maps[-1]
        for step, index, stride in zip(self.steps, self.skip_indices, STEP_STRIDES, strict=True):
            if index is None:
                x = step(upsample(x, ((size[0] + stride - 1) // stride, (size[1] + stride - 1) // stride)))
            else:
                skip = maps[index]
                x = step(torch.cat([upsample(x, (skip.shape[-2], skip.shape[-1])), skip], dim=1))
        return x
