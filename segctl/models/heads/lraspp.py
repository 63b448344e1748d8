"""Lite reduced atrous spatial pyramid pooling, arXiv:1905.02244, section 6.4."""

import torch
from torch import Tensor, nn

from segctl.models.backbone import Backbone
from segctl.models.heads.base import Head, unsuitable
from segctl.models.heads.blocks import ConvBNReLU, init_decoder
from segctl.models.heads.widths import Widths
from segctl.models.outputs import upsample
from segctl.schema.models import ModelSpec


class LRASPPHead(Head):
    """The last map through one 1×1 convolution, each channel scaled by the whole image's context, beside the map of stride 8.

    fine_index: the place of the stride-8 map among the backbone's. fine_channels: its channels, which the classifier reads as
    they are. Returns (B, width + fine_channels, H/8, W/8).
    The paper classifies both maps and adds the logits. One classifier of both maps side by side is the same sum, with one bias.
    The context is the mean of the whole image, as in torchvision; the paper's is a 49×49 average with strides.
    """

    def __init__(self, in_channels: int, fine_channels: int, fine_index: int, width: int) -> None:
        super().__init__()
        self.out_channels = width + fine_channels
        self.fine_index = fine_index
        self.conv = ConvBNReLU(in_channels, width)
        self.scale = nn.Conv2d(in_channels, width, 1, bias=False)
        init_decoder(self)

    @staticmethod
    def of(spec: ModelSpec, backbone: Backbone, widths: Widths) -> "LRASPPHead":
        if 8 not in backbone.strides[:-1]:
            raise unsuitable(spec, backbone, "a map of stride 8 before the last")
        channels, fine = backbone.channels, backbone.strides.index(8)
        return LRASPPHead(channels[-1], channels[fine], fine, spec.width or 128)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        last, fine = maps[-1], maps[self.fine_index]
        context = self.scale(last.mean((2, 3), keepdim=True)).sigmoid()
        return torch.cat([upsample(self.conv(last) * context, (fine.shape[-2], fine.shape[-1])), fine], dim=1)
