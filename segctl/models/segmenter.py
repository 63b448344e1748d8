"""The network: backbone, head, classifier, and an auxiliary classifier if the preset asks for one."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from segctl.errors import InputError
from segctl.models.backbone import Backbone
from segctl.models.external.weights import StateDict
from segctl.models.heads import Head
from segctl.models.heads.auxiliary import AuxiliaryHead, classifier
from segctl.models.normalize import Normalizing
from segctl.models.outputs import Prediction
from segctl.pixel_types import PixelType, pixel_type_of

DROPOUT = 0.1


class Segmenter(Normalizing):
    """Images -> Prediction at head stride. C classes; any H and W.

    `backbone` is one submodule and everything else counts as the head, so an optimiser can tell them apart.
    `class_names` is empty until the network is loaded from a file, which knows them. `weights_note` says in a sentence what was
    taken from a file of initial weights, and what was left; it is empty if there is nothing to say. `pixels` says how the bands
    of picture files become those of images, as `data.files.bands.BandScaling`; it is None for 8-bit colour.
    """

    returns = Prediction
    """The kind of prediction, which says how its logits are brought to the size of a label."""

    def __init__(self, backbone: Backbone, head: Head, num_classes: int, aux_width: int | None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_names: list[str] = []
        self.pixels: dict[str, Any] | None = None
        self.backbone = backbone
        self.weights_note = backbone.note
        self.head = head
        self.dropout: nn.Module = nn.Dropout2d(DROPOUT)
        self.classifier = classifier(head.out_channels, num_classes)
        self.aux = None if aux_width is None else AuxiliaryHead(backbone.channels[-2], aux_width, num_classes, DROPOUT)
        self.remember_pixels(backbone.mean, backbone.std)
        self.frozen = False

    @property
    def pixel_type(self) -> PixelType:
        """The type of the images that it takes, as `pixels` says."""
        return pixel_type_of(self.pixels)

    def freeze_backbone(self) -> None:
        """Let the backbone keep its weights and its running statistics from now on, whatever mode the network is in."""
        self.frozen = True
        self.backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Segmenter":
        """As for any module, but a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def forward(self, images: Tensor) -> Prediction:
        """images: normalised float (B, N, H, W). Raises InputError for a training batch of one value per channel."""
        height, width = images.shape[-2:]
        stride = self.backbone.strides[-1]
        if self.training and images.shape[0] == 1 and max(height, width) <= stride:
            raise InputError(
                f"cannot train on one image of {height}×{width} pixels at output stride {stride}: "
                "batch norm would see one value per channel",
                f"use a crop (data.crop) of more than {stride} pixels, or a larger batch",
            )
        with torch.no_grad() if self.frozen else nullcontext():
            maps = self.backbone(images)
        features = self.dropout(self.head(maps, (height, width)))
        aux_logits = None if self.aux is None else self.aux(maps[-2])
        return self.returns(self.classifier(features), aux_logits, features)

    def rename(self, table: StateDict) -> StateDict:
        """The weights of a file under this network's names; a family with files of its own replaces this."""
        return table
