"""Layers that several heads share. B batch, D channels, H W.

Every convolution of a head is bias-free and followed by batch norm and ReLU.
"""

import math
from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor, nn

from segctl.models import deterministic_resize
from segctl.models.outputs import upsample
from segctl.models.tracing import tracing


class ConvBNReLU(nn.Sequential):
    """Convolution, batch norm, ReLU: (B, in, H, W) -> (B, out, H, W), zero-padded to the same size.

    groups = in_channels makes it depthwise.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, dilation: int = 1, groups: int = 1) -> None:
        padding = dilation * (kernel_size // 2)
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding, dilation=dilation, groups=groups, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )


def silence_unseen_taps(head: nn.Module, stride: int, crop: tuple[int, int]) -> None:
    """Set to zero the weights of atrous convolutions that meet nothing but zero padding in crops (height, width) at that stride.

    They have no gradient there. Left at their random initial values, they would disturb every larger picture: DeepLabV3+ on
    CamVid's 360×480 after crops of 192×256 lost 36 points of mIoU_D.
    """
    for taps in _unseen_taps(head, stride, crop):
        taps.detach().zero_()


def has_unseen_taps(head: nn.Module, stride: int, crop: tuple[int, int]) -> bool:
    """Whether some of these weights are not zero."""
    return any(bool(taps.any()) for taps in _unseen_taps(head, stride, crop))


def _unseen_taps(head: nn.Module, stride: int, crop: tuple[int, int]) -> Iterator[Tensor]:
    """Views of the weights."""
    sides = [math.ceil(side / stride) for side in crop]
    for layer in head.modules():
        if isinstance(layer, nn.Conv2d) and max(layer.dilation) > 1:
            for axis, (side, size, rate) in enumerate(zip(sides, layer.kernel_size, layer.dilation, strict=True)):
                beyond = [tap for tap in range(size) if abs(tap - size // 2) * rate >= side]
                yield from (layer.weight.select(2 + axis, tap) for tap in beyond)


class PooledBatchNorm2d(nn.BatchNorm2d):
    """Batch norm for pooled maps (B, D, h, w), which may hold one value per channel: a batch of one behind a 1×1 pool.

    The variance of one value is zero, so torch refuses to train there. Such a batch is normalised by the running statistics, as
    in eval mode, and does not change them; so a batch of one image can be trained on.
    """

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps)
        return super().forward(x)


class BinMeans(nn.AdaptiveAvgPool2d):
    """The mean of each of bin_px × bin_px bins: (B, D, H, W) -> (B, D, bin_px, bin_px)."""

    def __init__(self, bin_px: int) -> None:
        super().__init__(bin_px)
        self.bin_px = bin_px

    def forward(self, x: Tensor) -> Tensor:
        if tracing() or deterministic_resize.wanted_for(x):  # an exported file cannot place bins in a size that it does not know
            return deterministic_resize.bin_means(x, self.bin_px)
        return super().forward(x)


class PoolingBranch(nn.Module):
    """Average pool to bin_px × bin_px, 1×1 to out, batch norm, ReLU, back to the size of the input.

    (B, in, H, W) -> (B, out, H, W). Bins larger than the map repeat its pixels.
    """

    def __init__(self, in_channels: int, out_channels: int, bin_px: int = 1, *, align_corners: bool = False) -> None:
        super().__init__()
        self.align_corners = align_corners
        self.pooled = nn.Sequential(
            BinMeans(bin_px),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            PooledBatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return upsample(self.pooled(x), (x.shape[-2], x.shape[-1]), self.align_corners)


def init_decoder(module: nn.Module) -> None:
    """Initialise a decoder as the reference does: Kaiming-uniform (fan-in) convolutions; batch norm at weight 1, bias 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_uniform_(layer.weight, mode="fan_in", nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
