"""A network as it is shipped and timed: pictures in, classes out, and nothing that only training needs."""

from typing import Literal

import torch
from torch import Tensor, nn

from segctl.models.outputs import at_label_size
from segctl.models.segmenter import Segmenter
from segctl.models.timm_backbone import fused


def predicting(model: Segmenter) -> Segmenter:
    """A copy in eval mode of what a prediction needs: no auxiliary classifier, re-parameterised blocks fused."""
    copy = fused(model)
    assert isinstance(copy, Segmenter)
    copy.aux = None
    return copy


class DeployedNetwork(nn.Module):
    """Images (B, H, W, N) of the network's type -> labels uint8 (B, H, W), or logits or probabilities float32 (B, C, H, W).

    Normalises, runs a float32 copy of what the network predicts with, and brings its logits to the images' size, as evaluation
    does.
    """

    def __init__(self, network: Segmenter, output: Literal["labels", "logits", "probabilities"] = "labels") -> None:
        super().__init__()
        self.network = predicting(network).float()
        self.output = output
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).to(torch.float32)  # not Normalizing.normalize: its work in place cannot be traced
        found = self.network((pixels - self.network.pixel_mean) / self.network.pixel_std)
        logits = at_label_size(found.logits, (images.shape[1], images.shape[2]), found.align_corners)
        match self.output:
            case "labels":
                return logits.argmax(1).to(torch.uint8)
            case "logits":
                return logits
            case "probabilities":
                return logits.softmax(1)
