"""Cross-entropy for hard and soft labels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from segctl.ignored import IGNORED
from segctl.losses.base import Loss
from segctl.losses.class_weights import given_weights
from segctl.losses.pixels import (
    blank_ignored,
    check_class_weights,
    checked_pixels,
    is_hard,
    log_likelihood,
    mean_over_valid,
    sum_dtype,
    times_class_weights,
    weights_at,
    weights_of,
)
from segctl.losses.sums.plain import Sums
from segctl.losses.sums.values import MeanOf, by_kernel
from segctl.schema.terms.loss_terms import CrossEntropySpec


class CrossEntropyLoss(Loss[CrossEntropySpec]):
    """Mean over the valid pixels of -sum_c y_c log p_c, p = softmax(logits).

    class_weights: C numbers w; then sum_c w_c y_c (-log p_c) over the valid pixels, divided by their sum_c w_c y_c, as torch
        does for hard labels.
    logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D). Returns a scalar.
    Unlike torch's cross_entropy, it takes every integer type and soft labels with ignored pixels, and gives 0 instead of NaN
    if all pixels are ignored. Raises ArgumentError for negative class weights.
    """

    mean_over_pixels = True
    class_weights: Tensor | None

    def __init__(self, ignore_index: int | None = IGNORED, class_weights: Sequence[float] | Tensor | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.register_buffer("class_weights", weights_of(class_weights, "CrossEntropyLoss"))

    @staticmethod
    def of(spec: CrossEntropySpec) -> "CrossEntropyLoss":
        return CrossEntropyLoss(class_weights=given_weights(spec.class_weights))

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        valid = checked_pixels(logits, label, self.ignore_index, keep_mask)
        check_class_weights(self.class_weights, logits.shape[1])
        if self.class_weights is None:
            return mean_over_valid(-log_likelihood(logits, label, valid), valid)
        return self._weighted(logits, label, valid, self.class_weights)

    def _weighted(self, logits: Tensor, label: Tensor, valid: Tensor | None, class_weights: Tensor) -> Tensor:
        """The mean weighted by class; shapes as in `forward`, valid bool (B, *D) or None, class_weights (C,)."""
        weights = weights_at(class_weights, label, valid, sum_dtype(logits))
        if is_hard(label):
            errors = -log_likelihood(logits, label, valid) * weights
        else:
            errors = -log_likelihood(
                logits, times_class_weights(class_weights, blank_ignored(label, valid).to(weights.dtype)), valid
            )
        errors = errors if valid is None else errors.masked_fill(~valid, 0.0)
        return errors.sum() / _at_least_tiny(weights.sum())

    def of_sums(self, sums: Sums) -> Tensor:
        """The loss, a scalar, of sums (B, C) that were taken with log=True and norm 1."""
        check_class_weights(self.class_weights, sums.labelled.shape[1])
        floor = 1.0 if self.class_weights is None else torch.finfo(sums.labelled.dtype).tiny
        value = by_kernel(sums, MeanOf(1.0, floor, entropy=False), self.class_weights, self._of_plain_sums)
        return self._of_plain_sums(sums) if value is None else value

    def _of_plain_sums(self, sums: Sums) -> Tensor:
        if self.class_weights is None:
            return -sums.log_likelihood.sum() / sums.labelled.sum().clamp(min=1)
        weights = self.class_weights.to(sums.labelled.dtype)
        return -(weights * sums.log_likelihood).sum() / _at_least_tiny((weights * sums.labelled).sum())


def _at_least_tiny(total: Tensor) -> Tensor:
    """A divisor (scalar) that makes 0/0 a 0: the total is 0 if every pixel is ignored or has weight 0."""
    return total.clamp(min=torch.finfo(total.dtype).tiny)
