"""The Jaccard, Dice and Tversky metric losses: IoU losses that take soft labels."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from segctl.errors import InputError
from segctl.losses.pixels import check_shapes, is_hard, sum_dtype, valid_pixels

Active = Literal["present", "all"]

BLOCK = 64
"""Pixels that are added one after another in `_sum_by_class` before the blocks are."""


class Cardinalities(NamedTuple):
    """What the ratio is made of, per image and class, each (B, C)."""

    intersection: Tensor
    predicted: Tensor
    labelled: Tensor
    largest_label: Tensor

    def over_batch(self) -> "Cardinalities":
        """The same over all images at once, each (1, C)."""
        return Cardinalities(
            self.intersection.sum(0, keepdim=True),
            self.predicted.sum(0, keepdim=True),
            self.labelled.sum(0, keepdim=True),
            self.largest_label.amax(0, keepdim=True),
        )


class JDTLoss(nn.Module):
    """1 - T per class, T = (tp + s) / (tp + alpha·fp + beta·fn + s), averaged as mIoU_D, mIoU_I or mIoU_C average IoU.

    With p = softmax(logits) and y the label (one-hot where it is hard): tp = sum min(p, y), fp = sum p - tp and
    fn = sum y - tp over the valid pixels.  On hard labels this is the soft Jaccard or Dice loss; on soft labels, unlike
    theirs, it is smallest where p = y.

    miou_d, miou_i, miou_c: weights of the three averages (D: sums over the batch, then the mean over classes; I: per image
        and class, over classes first; C: the same, over images first).
    alpha, beta: 1, 1 is Jaccard; 0.5, 0.5 is Dice; anything else Tversky.
    gamma: focal exponent, at least 1, on each class's term.  log_loss: the term is -log T instead of 1 - T.
    smooth: s.  norm: 2 takes sum p·y, sum p² and sum y² for the three sums above.
    active_hard, active_soft: the classes averaged over, "all" or those "present": largest label value above `threshold`.
    class_weights: C numbers that multiply the classes' terms; the sum is divided by the number of active classes.
    ignore_index: the id of ignored pixels in hard labels.  Soft labels say it with `keep_mask`.

    logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D).  Returns a scalar.
    Sources: arXiv:2302.05666 (Jaccard), 2303.16296 (Dice, Tversky), 2310.19252 (D, I, C).  An image without a valid pixel
    has no error: under "all" it counts as a perfect one in I, as in the authors' code; under "present" it is left out.
    """

    mean_over_pixels = False
    class_weights: Tensor | None

    def __init__(
        self,
        miou_d: float = 1.0,
        miou_i: float = 0.0,
        miou_c: float = 0.0,
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 1.0,
        smooth: float = 1e-3,
        norm: Literal[1, 2] = 1,
        log_loss: bool = False,
        threshold: float = 0.01,
        ignore_index: int | None = None,
        class_weights: Sequence[float] | Tensor | None = None,
        active_hard: Active = "present",
        active_soft: Active = "all",
    ) -> None:
        super().__init__()
        self.miou_d, self.miou_i, self.miou_c = miou_d, miou_i, miou_c
        self.alpha, self.beta, self.gamma, self.smooth = alpha, beta, gamma, smooth
        self.norm, self.log_loss, self.threshold = norm, log_loss, threshold
        self.ignore_index = ignore_index
        self.active_hard, self.active_soft = active_hard, active_soft
        self.register_buffer("class_weights", None if class_weights is None else torch.as_tensor(class_weights))
        self._check_arguments()

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        check_shapes(logits, label, keep_mask)
        self._check_class_weights(logits.shape[1])
        p = logits.softmax(1, dtype=sum_dtype(logits)).reshape(*logits.shape[:2], -1)
        valid = valid_pixels(label, self.ignore_index, keep_mask)
        valid = None if valid is None else valid.reshape(p.shape[0], -1)
        if is_hard(label):
            sums = _hard_sums(p, label.long().reshape(p.shape[0], -1), valid, self.norm)
            return self._loss(sums, self.active_hard)
        sums = _soft_sums(p, label.to(p.dtype).reshape(p.shape), valid, self.norm)
        return self._loss(sums, self.active_soft)

    def _loss(self, sums: Cardinalities, mode: Active) -> Tensor:
        loss = sums.intersection.new_zeros(())
        if self.miou_d > 0:
            terms, active = self._terms(sums.over_batch(), mode)
            loss = loss + self.miou_d * _mean_of_means(terms, active, first=1)
        if self.miou_i > 0 or self.miou_c > 0:
            terms, active = self._terms(sums, mode)
            loss = loss + self.miou_i * _mean_of_means(terms, active, first=1)
            loss = loss + self.miou_c * _mean_of_means(terms, active, first=0)
        return loss

    def _terms(self, sums: Cardinalities, mode: Active) -> tuple[Tensor, Tensor]:
        """Each class's term, and which are averaged over; both (B, C), or (1, C) over the batch."""
        tp = sums.intersection
        error = self.alpha * (sums.predicted - tp) + self.beta * (sums.labelled - tp)
        if self.log_loss:
            terms = torch.log1p(error / (tp + self.smooth))  # = -log T, without rounding a small T to 0
        else:
            total = tp + error + self.smooth
            terms = error / total.masked_fill(total == 0, 1.0)  # = 1 - T; an empty class without smoothing has no error
        if self.gamma != 1:
            terms = terms.clamp(min=0) ** self.gamma  # rounding may leave -1e-8, whose power is NaN
        if self.class_weights is not None:
            terms = terms * self.class_weights.to(terms.dtype)
        active = torch.ones_like(terms, dtype=torch.bool) if mode == "all" else sums.largest_label > self.threshold
        return terms, active

    def _check_class_weights(self, num_classes: int) -> None:
        if self.class_weights is not None and self.class_weights.shape != (num_classes,):
            got = self.class_weights.numel()
            raise ValueError(f"class_weights has {got} numbers, wanted {num_classes}, one for each class of the logits")

    def _check_arguments(self) -> None:
        """Refuse what has no meaning, or no finite value. Raises InputError."""
        means = [self.miou_d, self.miou_i, self.miou_c]
        factors = [self.alpha, self.beta, self.smooth]
        modes = [self.active_hard, self.active_soft]
        faults = {
            f"miou_d, miou_i, miou_c {means}, wanted none below 0 and one above": min(means) < 0 or sum(means) == 0,
            f"alpha, beta, smooth {factors}, wanted none below 0": min(factors) < 0,
            f"gamma {self.gamma}, wanted at least 1 (below, a perfect match has an infinite gradient)": self.gamma < 1,
            f"norm {self.norm}, wanted 1 or 2": self.norm not in (1, 2),
            f"log_loss with smooth {self.smooth}, wanted smooth above 0 (a missed class has no finite logarithm)": (
                self.log_loss and self.smooth == 0
            ),
            f"active_hard, active_soft {modes}, wanted 'present' or 'all'": not {"present", "all"}.issuperset(modes),
        }
        for fault, found in faults.items():
            if found:
                raise InputError(f"JDTLoss got {fault}")


def _hard_sums(p: Tensor, label: Tensor, valid: Tensor | None, norm: int) -> Cardinalities:
    """p (B, C, N), label int64 (B, N), valid bool (B, N) or None."""
    counted = torch.ones_like(label, dtype=p.dtype) if valid is None else valid.to(p.dtype)
    label = label if valid is None else label.masked_fill(~valid, 0)
    true_p = p.gather(1, label.unsqueeze(1)).squeeze(1) * counted
    pixels = _sum_by_class(counted, label, p.shape[1])
    return Cardinalities(_sum_by_class(true_p, label, p.shape[1]), _size(p, valid, norm), pixels, (pixels > 0).to(p.dtype))


def _soft_sums(p: Tensor, label: Tensor, valid: Tensor | None, norm: int) -> Cardinalities:
    """p and label (B, C, N), valid bool (B, N) or None."""
    if valid is not None:
        label = label.masked_fill(~valid.unsqueeze(1), 0.0)
    common = torch.minimum(p, label) if norm == 1 else p * label
    return Cardinalities(common.sum(2), _size(p, valid, norm), _size(label, None, norm), label.amax(2))


def _size(values: Tensor, valid: Tensor | None, norm: int) -> Tensor:
    """Sum of the values, or of their squares, over the valid pixels: (B, C, N) -> (B, C)."""
    if valid is not None:
        values = values.masked_fill(~valid.unsqueeze(1), 0.0)
    return (values if norm == 1 else values * values).sum(2)


def _sum_by_class(values: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Sum the values (B, N) of each class id in label (B, N) -> (B, C).

    Block by block: scatter_add adds one by one, and one float32 sum over half a million pixels was off by 0.5 per cent.
    """
    blocks = -(-label.shape[1] // BLOCK)
    slot = label + num_classes * (torch.arange(label.shape[1], device=label.device) // BLOCK)
    sums = values.new_zeros(values.shape[0], blocks * num_classes).scatter_add(1, slot, values)
    return sums.view(-1, blocks, num_classes).sum(1)


def _mean_of_means(terms: Tensor, active: Tensor, first: int) -> Tensor:
    """Mean over dimension `first`, then over what is left; inactive entries, and lines of them, count nowhere."""
    number = active.sum(first)
    means = terms.masked_fill(~active, 0.0).sum(first) / number.clamp(min=1)
    return means.sum() / (number > 0).sum().clamp(min=1)
