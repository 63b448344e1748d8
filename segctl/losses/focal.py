"""Focal loss: cross-entropy that looks away from pixels that are right already."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from segctl.errors import InputError
from segctl.losses.pixels import (
    IGNORE_INDEX,
    check_class_weights,
    check_shapes,
    is_hard,
    log_likelihood,
    mean_over_valid,
    sum_dtype,
    valid_pixels,
    weighted,
    weights_at,
)


class FocalLoss(nn.Module):
    """Mean over the valid pixels of -sum_c w_c y_c (1 - p_c)^gamma log p_c, p = softmax(logits).

    gamma: focusing exponent, at least 0; 0 is cross-entropy.  class_weights: C numbers w (the paper's alpha), 1 by default.
    logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D).  Returns a scalar.
    Source: arXiv:1708.02002 eq. 5, with softmax; on soft labels the mean of that over the label's classes, which for gamma
    above 0 is not smallest where p = y.
    """

    mean_over_pixels = True
    class_weights: Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        ignore_index: int | None = IGNORE_INDEX,
        class_weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        if gamma < 0:
            raise InputError(f"FocalLoss got gamma {gamma}, wanted at least 0")
        self.gamma = gamma
        self.ignore_index = ignore_index
        self.register_buffer("class_weights", None if class_weights is None else torch.as_tensor(class_weights))

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        check_shapes(logits, label, keep_mask)
        check_class_weights(self.class_weights, logits.shape[1])
        valid = valid_pixels(label, self.ignore_index, keep_mask)
        if is_hard(label):
            log_p = log_likelihood(logits, label, valid)
            errors = -self._focus(log_p) * log_p
            if self.class_weights is not None:
                errors = errors * weights_at(self.class_weights, label, valid, errors.dtype)
            return mean_over_valid(errors, valid)
        log_p = logits.log_softmax(1, dtype=sum_dtype(logits))
        errors = -label.to(log_p.dtype) * self._focus(log_p) * log_p
        if self.class_weights is not None:
            errors = weighted(self.class_weights, errors)
        return mean_over_valid(errors.sum(1), valid)

    def _focus(self, log_p: Tensor) -> Tensor:
        """(1 - p)^gamma, with a finite gradient where p rounds to 1."""
        return (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny) ** self.gamma
