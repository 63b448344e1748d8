"""KL divergence from soft labels: a teacher's probabilities, or smoothed labels."""

from torch import Tensor

from segctl.errors import ArgumentError
from segctl.losses.base import Loss
from segctl.losses.pixels import (
    blank_ignored,
    check_shapes,
    finite_where_ignored,
    is_hard,
    log_or_lowest,
    mean_over_valid,
    sum_dtype,
)
from segctl.losses.sums.plain import Sums
from segctl.losses.sums.values import MeanOf, by_kernel
from segctl.schema.terms.loss_terms import KLSpec


class KLLoss(Loss[KLSpec]):
    """T² times the mean over the valid pixels of KL(q || p) = sum_c q_c (log q_c - log p_c), p = softmax(logits / T).

    logits (B, C, *D); label q: probabilities (B, C, *D), already softened by the same T; keep_mask bool (B, *D).
    Returns a scalar: 0 where p = q, so it is the cross-entropy without the labels' own entropy. Raises ArgumentError for a
    temperature that is not above 0, and for class ids as labels.
    Source: arXiv:1503.02531 §2 (the factor T² keeps the gradient's size when T changes).
    """

    mean_over_pixels = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ArgumentError(f"KLLoss got temperature {temperature}, wanted above 0")
        self.temperature = temperature

    @staticmethod
    def of(spec: KLSpec) -> "KLLoss":
        return KLLoss()

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        return mean_over_valid(self.by_pixel(logits, label, keep_mask), keep_mask)

    def by_pixel(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        """The loss (B, *D) of each pixel; arguments as those of the call. Only valid pixels' values mean anything."""
        check_shapes(logits, label, keep_mask)
        logits = finite_where_ignored(logits, keep_mask)
        if is_hard(label):
            raise ArgumentError("KLLoss got class ids, wanted probabilities (B, C, *D); for hard labels use CrossEntropyLoss")
        log_p = (logits.to(sum_dtype(logits)) / self.temperature).log_softmax(1)
        q = blank_ignored(label, keep_mask).to(log_p.dtype)
        return self.temperature**2 * (q * (log_or_lowest(q) - log_p)).sum(1)

    def of_sums(self, sums: Sums, by_image: bool = False) -> Tensor:
        """The loss, a scalar, of sums (B, C) over soft labels, of logits / T, that were taken with log=True and norm 1.

        by_image: the mean over images of each image's mean, instead of the mean over the batch's pixels.
        """
        if by_image:
            of_images = (sums.label_log - sums.log_likelihood).sum(1) / sums.labelled.sum(1).clamp(min=1)
            return self.temperature**2 * of_images.mean()
        value = by_kernel(sums, MeanOf(self.temperature**2, 1.0, entropy=True), None, self._of_plain_sums)
        return self._of_plain_sums(sums) if value is None else value

    def _of_plain_sums(self, sums: Sums) -> Tensor:
        return self.temperature**2 * (sums.label_log - sums.log_likelihood).sum() / sums.labelled.sum().clamp(min=1)
