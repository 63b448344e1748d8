"""Cross-entropy over only the hard pixels of a batch."""

import math

import torch
from torch import Tensor

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.losses.base import Loss
from segctl.losses.pixels import checked_pixels, finite_where_ignored, log_likelihood, wide_dtype
from segctl.runtime.live_bytes import as_on_gpu
from segctl.schema.terms.loss_terms import OhemSpec


class HardPixelLoss(Loss[OhemSpec]):
    """Mean cross-entropy over the pixels whose label has a probability below `threshold`, and over at least a share of all.

    threshold: a pixel is hard where -sum_c y_c log p_c is above -log threshold (hard labels: where p_y is below it).
    min_share: if fewer than this share of the valid pixels are hard, the hardest pixels fill it up.
    logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D). Returns a scalar.
    Raises ArgumentError for a threshold or a share outside (0, 1].
    Source: online hard example mining, arXiv:1604.03540, in the per-pixel form that segmentation took from it; the
    defaults 0.7 and 1/16 of the pixels are those of arXiv:1808.00897's published code.
    """

    mean_over_pixels = True  # a mean over only the hard pixels, so micro-batches add up to the batch only roughly

    def __init__(self, threshold: float = 0.7, min_share: float = 1 / 16, ignore_index: int | None = IGNORED) -> None:
        super().__init__()
        if not (0 < threshold <= 1 and 0 < min_share <= 1):
            raise ArgumentError(
                f"HardPixelLoss got threshold {threshold}, min_share {min_share}, wanted both above 0 and at most 1"
            )
        self.threshold, self.min_share, self.ignore_index = threshold, min_share, ignore_index

    @staticmethod
    def of(spec: OhemSpec) -> "HardPixelLoss":
        return HardPixelLoss(spec.threshold, spec.min_share)

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        valid = checked_pixels(logits, label, self.ignore_index, keep_mask)
        errors = -log_likelihood(logits, label, valid)
        if valid is not None and (errors.device.type != "cpu" or as_on_gpu(errors)):
            return self._mean_of_hard(errors.flatten(), valid.flatten())
        kept = errors.flatten() if valid is None else errors[valid]
        if kept.numel() == 0:
            return finite_where_ignored(logits, valid).sum(dtype=errors.dtype) * 0
        least = max(1, math.ceil(self.min_share * kept.numel()))
        bound = kept.detach().topk(least, sorted=False).values.amin().clamp(max=-math.log(self.threshold))
        hard = kept.detach() >= bound
        return torch.where(hard, kept, 0.0).sum() / hard.sum()

    def _mean_of_hard(self, errors: Tensor, valid: Tensor) -> Tensor:
        """The loss of errors (N,) at the valid pixels, bool (N,), without telling the host how many these are."""
        found = errors.detach().masked_fill(~valid, -math.inf)
        most = max(1, math.ceil(self.min_share * len(found)))
        least = (self.min_share * valid.sum().to(wide_dtype(valid.device))).ceil().long().clamp(min=1)
        bound = found.topk(most).values.gather(0, least.view(1) - 1).clamp(max=-math.log(self.threshold))
        hard = valid & (found >= bound)
        return torch.where(hard, errors, 0.0).sum() / hard.sum().clamp(min=1)
