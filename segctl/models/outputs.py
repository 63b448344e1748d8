"""What a network returns, and the one rule that brings it to a label's size.

Losses and distillation terms read a prediction through `Outputs`. So the main and the auxiliary logits are each upsampled at
most once a step, however many terms read them, and not at all if every term on them reads them at head stride.
"""

from collections.abc import Hashable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from segctl.errors import InputError
from segctl.models import deterministic_resize
from segctl.models.tracing import tracing

OutputName = Literal["main", "aux"]


class Prediction(NamedTuple):
    """What a network returns for a batch, at head stride: before any upsampling to the image's size."""

    logits: Tensor
    """(B, C, h, w)"""
    aux_logits: Tensor | None
    """(B, C, h', w') of the auxiliary classifier, in train and in eval mode; None for a network without one."""
    features: Tensor | None
    """(B, D, h, w), the input of the final 1×1 classifier, after dropout; None for a foreign network that hides it."""

    @property
    def align_corners(self) -> bool:  # not a field, because the fields are tensors
        """Whether the logits are resized with the centres of the corner pixels on each other, not by pixel centres."""
        return False


class CornerAlignedPrediction(Prediction):
    """A prediction of a network that was trained with aligned corners."""

    @property
    def align_corners(self) -> bool:
        return True


def upsample(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), bilinear. The only resizing in segctl's networks.

    It is used for logits at a label's size, and for coarse maps inside the heads.
    """
    if not tracing() and logits.shape[-2:] == size:
        return logits
    if deterministic_resize.wanted_for(logits):
        return deterministic_resize.resized(logits, size, align_corners)
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=align_corners)


def at_label_size(logits: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """Logits (B, C, h, w) -> (B, C, *size) in at least float32, in training and in scoring alike."""
    return upsample(logits.to(torch.promote_types(logits.dtype, torch.float32)), size, align_corners)


class Outputs:
    """A prediction and the size (H, W) of the label it is compared with.

    `unlabelled`, bool (B, H, W): the real pixels of pictures without label; None where every picture has a label.  `shared` is
    for what several terms compute from the same outputs: the first one leaves it there, by a key, for the others.
    """

    def __init__(self, prediction: Prediction, size: tuple[int, int], unlabelled: Tensor | None = None) -> None:
        self.prediction = prediction
        self.size = size
        self.unlabelled = unlabelled
        self.shared: dict[Hashable, Any] = {}
        self._upsampled: dict[OutputName, Tensor] = {}

    @property
    def features(self) -> Tensor:
        """(B, D, h, w), the input of the final classifier. Raises InputError for a network that hides it."""
        if self.prediction.features is None:
            raise InputError("a term asks for features, but this network gives none", "use terms that compare only logits")
        return self.prediction.features

    def at_head_stride(self, name: OutputName) -> Tensor:
        """Logits (B, C, h, w) as the network returned them. Raises InputError for 'aux' without an auxiliary classifier."""
        if name == "main":
            return self.prediction.logits
        if self.prediction.aux_logits is None:
            raise InputError(
                "a term asks for 'aux' logits, but this network has no auxiliary classifier (model.aux is false)",
                "use logits 'main', or train the network with `--set model.aux=true`",
            )
        return self.prediction.aux_logits

    def upsampled(self, name: OutputName) -> Tensor:
        """Logits (B, C, *size), computed at the first call and reused. Raises InputError as `at_head_stride` does."""
        if name not in self._upsampled:
            self._upsampled[name] = at_label_size(self.at_head_stride(name), self.size, self.prediction.align_corners)
        return self._upsampled[name]
