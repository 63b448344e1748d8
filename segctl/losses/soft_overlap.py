"""Soft Jaccard and soft Dice as most libraries have them: baselines. Train with `segctl.losses.jdt` instead.

Both take products for the intersection. On hard labels they equal JDTLoss's Jaccard and Dice. On soft labels they are not
smallest at p = y: a product rewards a prediction that is more certain than its label (arXiv:2302.05666 §3).

per_image: each image by itself, then the mean over the active classes of all images; otherwise the batch at once.
smooth: s.  active: the classes averaged over, those "present" (largest label value above 0) or "all".
"""

from typing import TypeVar

from torch import Tensor

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.losses.base import Loss
from segctl.losses.pixels import check_active, checked_pixels, is_hard
from segctl.losses.sums.plain import Sums, plain_sums
from segctl.schema.terms.loss_terms import Active, OverlapTerm, SoftDiceSpec, SoftJaccardSpec

S = TypeVar("S", bound=OverlapTerm)


class SoftOverlap(Loss[S]):
    """What both have in common: their arguments and their sums."""

    mean_over_pixels = False

    def __init__(
        self, per_image: bool = False, smooth: float = 1.0, active: Active = "present", ignore_index: int | None = IGNORED
    ) -> None:
        super().__init__()
        name = type(self).__name__
        if not smooth >= 0:
            raise ArgumentError(f"{name} got smooth {smooth}, wanted at least 0")
        check_active(active, name)
        self.per_image, self.smooth, self.active, self.ignore_index = per_image, smooth, active, ignore_index

    def sums_of(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None) -> Sums:
        """sum p·y, sum p and sum y, per image (B, C) or over the batch (1, C); arguments as `forward` takes them."""
        valid = checked_pixels(logits, label, self.ignore_index, keep_mask)
        sums = plain_sums(logits, label, valid, norm=1)
        if not is_hard(label):  # min(p, y) is p·y only for hard labels
            sums = sums._replace(intersection=plain_sums(logits, label, valid, norm=2).intersection)
        return sums if self.per_image else sums.over_batch()

    def mean_error(self, above: Tensor, below: Tensor, sums: Sums) -> Tensor:
        """Mean of 1 - above / below, each (B, C) or (1, C), over the active classes; 0/0 is a class without error."""
        errors = (below - above) / below.masked_fill(below == 0, 1.0)
        if self.active == "present":
            present = sums.largest_label > 0
            return errors.masked_fill(~present, 0.0).sum() / present.sum().clamp(min=1)
        return errors.mean()


class SoftJaccardLoss(SoftOverlap[SoftJaccardSpec]):
    """1 - (sum p·y + s) / (sum p + sum y - sum p·y + s) per class, then the mean over classes.

    logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D). Returns a scalar.
    Arguments: see the top of the file.
    """

    @staticmethod
    def of(spec: SoftJaccardSpec) -> "SoftJaccardLoss":
        return SoftJaccardLoss(spec.per_image, spec.smooth, spec.active)

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        sums = self.sums_of(logits, label, keep_mask)
        union = sums.predicted + sums.labelled - sums.intersection
        return self.mean_error(sums.intersection + self.smooth, union + self.smooth, sums)


class SoftDiceLoss(SoftOverlap[SoftDiceSpec]):
    """1 - (2 sum p·y + s) / (sum p + sum y + s) per class, then the mean over classes.

    logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D). Returns a scalar.
    Arguments: see the top of the file.
    """

    @staticmethod
    def of(spec: SoftDiceSpec) -> "SoftDiceLoss":
        return SoftDiceLoss(spec.per_image, spec.smooth, spec.active)

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        sums = self.sums_of(logits, label, keep_mask)
        sizes = sums.predicted + sums.labelled
        return self.mean_error(2 * sums.intersection + self.smooth, sizes + self.smooth, sums)
