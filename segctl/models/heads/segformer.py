"""SegFormer's decoder of linear layers alone, arXiv:2105.15203, section 3.2."""

from collections.abc import Iterator
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segctl.models.backbone import Backbone
from segctl.models.heads.base import Head, from_stride_4
from segctl.models.heads.blocks import ConvBNReLU, init_decoder
from segctl.models.heads.widths import Widths
from segctl.models.outputs import upsample
from segctl.schema.models import ModelSpec


class SegFormerHead(Head):
    """A linear layer for each map from stride 4 on, all resized to stride 4, merged by one more.

    channels: of those maps, finest first. Returns (B, width, H/4, W/4). The width is 256 as for the paper's MiT-B0 and B1; B2 to
    B5 take 768. Batch norm and ReLU after the merging layer are those of the authors' code.

    Resizing and linear layers commute, because each output pixel is a mean of input pixels with weights that sum to 1. So each
    map goes through the product of its two layers before it is resized, and the maps are added: the same values, without the
    authors' 4 × width channels at stride 4, on which the merging layer costs more than the rest of a small network.
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
        merging, norm, relu = self.merge
        if isinstance(merging, nn.Identity):  # `reparameterize` was called
            merged = [layer(x) for layer, x in zip(self.linear, used, strict=True)]
        else:
            merged = [F.conv2d(x, *layer) for layer, x in zip(self._products(), used, strict=True)]
        found: Tensor = relu(norm(reduce(torch.add, [upsample(x, fine) for x in merged])))
        return found

    def reparameterize(self) -> None:
        """Keep only the products of the layers, which predictions need. timm's `reparameterize_model` calls it."""
        with torch.no_grad():
            for layer, (weight, bias) in zip(self.linear, list(self._products()), strict=True):
                layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.merge[0] = nn.Identity()

    def _products(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Weight (width, C, 1, 1) and bias (width,) of each map's linear layer followed by its part of the merging layer."""
        # The merging layer has the coarsest map first, as in the authors' code, so that their weights fit.
        parts = torch.split(self.merge[0].get_parameter("weight").flatten(1), self.out_channels, dim=1)[::-1]
        for linear, part in zip(self.linear, parts, strict=True):
            weight, bias = linear.get_parameter("weight"), linear.get_parameter("bias")
            yield (part @ weight.flatten(1))[..., None, None], part @ bias
