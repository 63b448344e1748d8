"""The network: backbone, head, classifier, and an auxiliary classifier where there is one."""

import torch
from torch import Tensor, nn

from segctl.errors import InputError
from segctl.models.backbone import Backbone
from segctl.models.heads import Head
from segctl.models.heads.auxiliary import AuxiliaryHead, classifier
from segctl.models.outputs import Prediction

DROPOUT = 0.1


class Segmenter(nn.Module):
    """Images -> Prediction at head stride. C classes; any H and W.

    `backbone` is one submodule and everything else the head, so an optimiser can tell them apart.
    `class_names` is empty until the network is loaded from a file, which knows them.
    The pixels' mean and standard deviation are persistent buffers: a weights file keeps the ones it was trained with,
    whatever a later timm says of the same backbone.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, backbone: Backbone, head: Head, num_classes: int, aux_width: int | None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.class_names: list[str] = []
        self.backbone = backbone
        self.head = head
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = classifier(head.out_channels, num_classes)
        self.aux = None if aux_width is None else AuxiliaryHead(backbone.channels[-2], aux_width, num_classes, DROPOUT)
        self.register_buffer("pixel_mean", torch.tensor(backbone.mean).mul(255).view(1, 3, 1, 1))
        self.register_buffer("pixel_std", torch.tensor(backbone.std).mul(255).view(1, 3, 1, 1))

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) -> float32 (B, 3, H, W) in channels_last memory, by the mean and deviation of the backbone."""
        channels_first = images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.channels_last, copy=True)
        return channels_first.sub_(self.pixel_mean).div_(self.pixel_std)

    def forward(self, images: Tensor) -> Prediction:
        """images: normalised float (B, 3, H, W). A training batch must leave more than one value per channel."""
        height, width = images.shape[-2:]
        stride = self.backbone.strides[-1]
        if self.training and images.shape[0] == 1 and max(height, width) <= stride:
            raise InputError(
                f"cannot train on one image of {height}×{width} pixels at output stride {stride}: "
                "batch norm would see one value per channel",
                f"use a crop (data.crop) of more than {stride} pixels, or a larger batch",
            )
        maps = self.backbone(images)
        features = self.dropout(self.head(maps, (height, width)))
        aux_logits = None if self.aux is None else self.aux(maps[-2])
        return Prediction(self.classifier(features), aux_logits, features)
