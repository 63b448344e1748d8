"""KL divergence from soft labels: a teacher's probabilities, or smoothed labels."""

import torch
from torch import Tensor, nn

from segctl.losses.pixels import check_shapes, is_hard, mean_over_valid, sum_dtype


class KLLoss(nn.Module):
    """T² times the mean over the valid pixels of KL(q || p) = sum_c q_c (log q_c - log p_c), p = softmax(logits / T).

    logits (B, C, *D); label q: probabilities (B, C, *D), already softened by the same T where a temperature is meant;
    keep_mask bool (B, *D).  Returns a scalar: 0 where p = q, so it is the cross-entropy without the labels' own entropy.
    Source: arXiv:1503.02531 §2 (the factor T² keeps the gradient's size when T changes).
    """

    mean_over_pixels = True

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        check_shapes(logits, label, keep_mask)
        if is_hard(label):
            raise ValueError("KLLoss got class ids, wanted probabilities (B, C, *D); for hard labels use CrossEntropyLoss")
        log_p = (logits.to(sum_dtype(logits)) / self.temperature).log_softmax(1)
        q = label.to(log_p.dtype)
        # The clamp only touches q = 0, where 0·log 0 must be 0 with a finite gradient.
        log_q = q.clamp(min=torch.finfo(q.dtype).tiny).log()
        per_pixel = (q * (log_q - log_p)).sum(1)
        return self.temperature**2 * mean_over_valid(per_pixel, keep_mask)
