"""Soft Jaccard and soft Dice as most libraries have them: baselines for `segctl.losses.jdt`, which is the one to train with.

Both take products for the intersection.  On hard labels they are JDTLoss's Jaccard and Dice.  On soft labels they are not
smallest at p = y: a product rewards a prediction that is more certain than its label (arXiv:2302.05666 §3).

per_image: each image by itself, then the mean over the active classes of all images; otherwise the batch at once.
smooth: s.  active: the classes averaged over, those "present" (largest label value above 0) or "all".
"""

from torch import Tensor, nn

from segctl.losses.pixels import IGNORE_INDEX, check_shapes, is_hard, valid_pixels
from segctl.losses.sums.plain import Sums, plain_sums
from segctl.schema.loss_terms import Active


class SoftJaccardLoss(nn.Module):
    """1 - (sum p·y + s) / (sum p + sum y - sum p·y + s) per class, then the mean over classes.

    logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D).  Returns a scalar.
    Arguments: see the top of the file.
    """

    mean_over_pixels = False

    def __init__(
        self, per_image: bool = False, smooth: float = 1.0, active: Active = "present", ignore_index: int | None = IGNORE_INDEX
    ) -> None:
        super().__init__()
        self.per_image, self.smooth, self.active, self.ignore_index = per_image, smooth, active, ignore_index

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        sums = _product_sums(logits, label, self.ignore_index, keep_mask, self.per_image)
        union = sums.predicted + sums.labelled - sums.intersection
        return _mean_error(sums.intersection + self.smooth, union + self.smooth, sums, self.active)


class SoftDiceLoss(nn.Module):
    """1 - (2 sum p·y + s) / (sum p + sum y + s) per class, then the mean over classes.

    logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D).  Returns a scalar.
    Arguments: see the top of the file.
    """

    mean_over_pixels = False

    def __init__(
        self, per_image: bool = False, smooth: float = 1.0, active: Active = "present", ignore_index: int | None = IGNORE_INDEX
    ) -> None:
        super().__init__()
        self.per_image, self.smooth, self.active, self.ignore_index = per_image, smooth, active, ignore_index

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        sums = _product_sums(logits, label, self.ignore_index, keep_mask, self.per_image)
        sizes = sums.predicted + sums.labelled
        return _mean_error(2 * sums.intersection + self.smooth, sizes + self.smooth, sums, self.active)


def _product_sums(logits: Tensor, label: Tensor, ignore_index: int | None, keep_mask: Tensor | None, per_image: bool) -> Sums:
    """sum p·y, sum p and sum y, per image (B, C) or over the batch (1, C)."""
    check_shapes(logits, label, keep_mask)
    valid = valid_pixels(label, ignore_index, keep_mask)
    sums = plain_sums(logits, label, valid, norm=1)
    if not is_hard(label):
        sums = sums._replace(intersection=plain_sums(logits, label, valid, norm=2).intersection)
    return sums if per_image else sums.over_batch()


def _mean_error(above: Tensor, below: Tensor, sums: Sums, mode: Active) -> Tensor:
    """Mean of 1 - above / below over the active classes; an empty class without smoothing has no error."""
    errors = (below - above) / below.masked_fill(below == 0, 1.0)
    if mode == "present":
        present = sums.largest_label > 0
        return errors.masked_fill(~present, 0.0).sum() / present.sum().clamp(min=1)
    return errors.mean()
