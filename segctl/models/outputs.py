"""What a network returns, and the one rule that brings it to a label's size.

Losses and distillation terms read a prediction through `Outputs`, so that the main and the auxiliary logits are each
upsampled at most once a step, however many terms ask for them.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segctl.errors import InputError
from segctl.models import deterministic_resize

OutputName = Literal["main", "aux"]


class Prediction(NamedTuple):
    """A network's answer at head stride, that is, before any upsampling to the image's size."""

    logits: Tensor
    """(B, C, h, w)"""
    aux_logits: Tensor | None
    """(B, C, h', w') of the auxiliary classifier, in train and eval mode alike; None for a network without one."""
    features: Tensor | None
    """(B, D, h, w), the input of the final 1×1 classifier, after its dropout; None for a foreign network that hides it."""


def upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), bilinear, align_corners False: the only resizing in segctl's networks.

    It brings logits to a label's size, and coarse maps to finer ones inside the heads.
    """
    if logits.shape[-2:] == size:
        return logits
    if deterministic_resize.wanted_for(logits):
        return deterministic_resize.resized(logits, size)
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def at_label_size(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits in training and in scoring alike, (B, C, *size), upsampled in at least float32 whatever the network computed in."""
    return upsample(logits.to(torch.promote_types(logits.dtype, torch.float32)), size)


class Outputs:
    """A prediction and the size (H, W) of the label it is compared with."""

    def __init__(self, prediction: Prediction, size: tuple[int, int]) -> None:
        self.prediction = prediction
        self.size = size
        self._upsampled: dict[OutputName, Tensor] = {}

    @property
    def features(self) -> Tensor:
        """(B, D, h, w), the input of the final classifier. Raises InputError for a network that hides it."""
        if self.prediction.features is None:
            raise InputError("a term asks for features, but this network gives none", "use terms on logits alone")
        return self.prediction.features

    def at_head_stride(self, name: OutputName) -> Tensor:
        """(B, C, h, w), as the network gave it. Raises InputError for 'aux' of a network without auxiliary classifier."""
        if name == "main":
            return self.prediction.logits
        if self.prediction.aux_logits is None:
            raise InputError(
                "a term asks for 'aux' logits, but this network has no auxiliary classifier (model.aux is false)",
                "use logits 'main', or train the network with `--set model.aux=true`",
            )
        return self.prediction.aux_logits

    def upsampled(self, name: OutputName) -> Tensor:
        """(B, C, *size), computed at the first call and kept."""
        if name not in self._upsampled:
            self._upsampled[name] = at_label_size(self.at_head_stride(name), self.size)
        return self._upsampled[name]
