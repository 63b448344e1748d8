"""Running a network on images as the datasets hold them."""

from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.models.outputs import Prediction


class ImageNetwork(Protocol):
    """What scoring asks of a network: segctl's own, a foreign one, or an exported file."""

    num_classes: int
    training: bool

    def normalize(self, images: Tensor) -> Tensor:
        """Images (B, H, W, N) of uint8 or uint16 -> what the network takes."""

    def __call__(self, images: Tensor) -> Any:
        """A Prediction for normalised images."""

    def eval(self) -> Any:
        """Switch to eval mode."""

    def train(self, mode: bool = True) -> Any:
        """Switch to train mode, or back."""


def forward_images(network: ImageNetwork, images: Tensor) -> Prediction:
    """Normalise images uint8 (B, H, W, N), or uint16 where datasets keep 16 bits, as the network wants them, and run it.

    Returns logits and features at head stride. The images must lie on the network's device. Precision, gradients and train or
    eval mode are the caller's choice.
    """
    prediction: Prediction = network(network.normalize(images))
    return prediction


def resized_images(images: Tensor, scale: float) -> Tensor:
    """Images (B, H, W, N) of uint8 or uint16 -> (B, h, w, N) of the same type, bilinear; antialiased when shrinking; at scale 1
    as they are."""
    if scale == 1:
        return images
    height, width = (max(1, round(side * scale)) for side in images.shape[1:3])
    planes = images.permute(0, 3, 1, 2).float()
    resized = F.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False, antialias=scale < 1)
    return resized.round().clamp(0, torch.iinfo(images.dtype).max).to(images.dtype).permute(0, 2, 3, 1)
