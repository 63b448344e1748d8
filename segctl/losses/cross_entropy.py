"""Cross-entropy for hard and soft labels."""

import torch.nn.functional as F
from torch import Tensor, nn

from segctl.losses.pixels import IGNORE_INDEX, check_shapes, is_hard, mean_over_valid, sum_dtype, valid_pixels


class CrossEntropyLoss(nn.Module):
    """Mean over the valid pixels of -sum_c y_c log p_c, p = softmax(logits).

    logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D).  Returns a scalar.
    Unlike torch's own: every integer type, soft labels with ignored pixels, and 0 instead of NaN where all are ignored.
    """

    mean_over_pixels = True

    def __init__(self, ignore_index: int | None = IGNORE_INDEX) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        check_shapes(logits, label, keep_mask)
        valid = valid_pixels(label, self.ignore_index, keep_mask)
        log_p = logits.log_softmax(1, dtype=sum_dtype(logits))
        if is_hard(label):
            target = label.long() if valid is None else label.long().masked_fill(~valid, 0)
            per_pixel = F.nll_loss(log_p, target, reduction="none")
        else:
            per_pixel = -(label.to(log_p.dtype) * log_p).sum(1)
        return mean_over_valid(per_pixel, valid)
