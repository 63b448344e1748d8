"""Focal loss: cross-entropy that gives little weight to pixels that are right already."""

from collections.abc import Sequence

import torch
from torch import Tensor

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.losses.base import Loss
from segctl.losses.class_weights import given_weights
from segctl.losses.pixels import (
    blank_ignored,
    check_class_weights,
    checked_pixels,
    finite_where_ignored,
    is_hard,
    log_likelihood,
    mean_over_valid,
    sum_dtype,
    times_class_weights,
    weights_at,
    weights_of,
)
from segctl.schema.terms.loss_terms import FocalSpec


class FocalLoss(Loss[FocalSpec]):
    """Mean over the valid pixels of -sum_c w_c y_c (1 - p_c)^gamma log p_c, p = softmax(logits).

    gamma: focusing exponent, at least 0; 0 is cross-entropy.  class_weights: C numbers w (the paper's alpha), 1 by default.
    logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D). Returns a scalar.
    Source: arXiv:1708.02002 eq. 5, with softmax. On soft labels it is the mean over the label's classes, which for gamma above
    0 is not smallest where p = y. Raises ArgumentError for gamma below 0 and negative class weights.
    """

    mean_over_pixels = True
    class_weights: Tensor | None

    def __init__(
        self,
        gamma: float = 2.0,
        ignore_index: int | None = IGNORED,
        class_weights: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ArgumentError(f"FocalLoss got gamma {gamma}, wanted at least 0")
        self.gamma = gamma
        self.ignore_index = ignore_index
        self.register_buffer("class_weights", weights_of(class_weights, "FocalLoss"))

    @staticmethod
    def of(spec: FocalSpec) -> "FocalLoss":
        return FocalLoss(spec.gamma, class_weights=given_weights(spec.class_weights))

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        valid = checked_pixels(logits, label, self.ignore_index, keep_mask)
        check_class_weights(self.class_weights, logits.shape[1])
        if is_hard(label):
            log_p = log_likelihood(logits, label, valid)
            errors = -self._focus(log_p) * log_p
            if self.class_weights is not None:
                errors = errors * weights_at(self.class_weights, label, valid, errors.dtype)
            return mean_over_valid(errors, valid)
        log_p = finite_where_ignored(logits, valid).log_softmax(1, dtype=sum_dtype(logits))
        errors = -blank_ignored(label, valid).to(log_p.dtype) * self._focus(log_p) * log_p
        if self.class_weights is not None:
            errors = times_class_weights(self.class_weights, errors)
        return mean_over_valid(errors.sum(1), valid)

    def _focus(self, log_p: Tensor) -> Tensor:
        """(1 - p)^gamma of log p, any shape."""
        # At least `tiny`, because the gradient of 0^gamma is infinite for gamma below 1, and p does round to 1.
        return (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny) ** self.gamma
