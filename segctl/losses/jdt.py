"""The Jaccard, Dice and Tversky metric losses: IoU losses that take soft labels."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal, get_args

import torch
from torch import Tensor

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.losses.across_ranks import among_others, max_over_ranks, sum_over_ranks
from segctl.losses.base import Loss
from segctl.losses.pixels import check_class_weights, checked_pixels, finite_where_ignored, is_hard, sum_dtype, weights_of
from segctl.losses.sums.choose import sums_of
from segctl.losses.sums.on_gpu import SumTables
from segctl.losses.sums.plain import Sums
from segctl.losses.sums.values import RatioOf, by_kernel, tables_over_ranks
from segctl.schema.terms.loss_terms import ActiveInMetric, JaccardFamily, JDTSpec, Overlap, Reduce


class JDTLoss(Loss[JDTSpec]):
    """1 - T per class, T = (tp + s) / (tp + alpha·fp + beta·fn + s), averaged as mIoU_D, mIoU_I or mIoU_C average IoU.

    With p = softmax(logits) and y the label (one-hot where it is hard): tp = sum min(p, y), fp = sum p - tp and
    fn = sum y - tp over the valid pixels. On hard labels it equals the soft Jaccard or Dice loss; on soft labels, unlike those
    two, it is smallest where p = y.

    miou_d, miou_i, miou_c: weights of the three averages (D: sums over the batch, then the mean over classes; I: per image
        and class, over classes first; C: the same, over images first).
    alpha, beta: 1, 1 is Jaccard; 0.5, 0.5 is Dice; anything else Tversky.
    gamma: focal exponent, at least 1, on each class's term. With norm 2 and alpha other than beta, 1 - T may be below 0; its
        power has the sign that arithmetic gives it, as in the authors' code, so gamma must be whole there.
    log_loss: the term is -log T instead of 1 - T.
    smooth: s.  norm: 2 takes sum p·y, sum p² and sum y² for the three sums above.
    active_hard, active_soft: the classes averaged over, "all" or those "present": largest label value above `threshold`;
        "probability": largest p above it; "both": largest p + y above it.
    overlap: "product" takes sum p·y for tp in T and leaves fp and fn as they are (JML2, zifuwanggg/JDTLosses,
        losses/jaccard_metric_losses.py at 32b3f23). On hard labels it is the same; on soft ones a match still costs nothing.
    class_weights: C numbers that multiply the classes' terms; the sum is divided by the number of active classes.
    ignore_index: the id of ignored pixels in hard labels. For soft labels, give `keep_mask`.
    reduce: "global" takes sums and means over the images of all ranks, so that D stays D when one GPU holds few images; then
        every rank must call the loss. "local" takes each rank's own images.

    logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D). Returns a scalar.
    An image without a valid pixel has no error: under "all" it counts as a perfect one in I, as in the authors' code; under
    "present" it is left out. Raises ArgumentError (a ValueError) for arguments without a meaning or a finite value.
    Sources: arXiv:2302.05666 (Jaccard), 2303.16296 (Dice, Tversky), 2310.19252 (D, I, C).
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
        active_hard: ActiveInMetric = "present",
        active_soft: ActiveInMetric = "all",
        reduce: Reduce = "local",
        overlap: Overlap = "minimum",
    ) -> None:
        super().__init__()
        self.miou_d, self.miou_i, self.miou_c = miou_d, miou_i, miou_c
        self.alpha, self.beta, self.gamma, self.smooth = alpha, beta, gamma, smooth
        self.norm, self.log_loss, self.threshold = norm, log_loss, threshold
        self.ignore_index = ignore_index
        self.active_hard, self.active_soft, self.reduce, self.overlap = active_hard, active_soft, reduce, overlap
        self._check_arguments()
        self.register_buffer("class_weights", weights_of(class_weights, "JDTLoss"))

    @staticmethod
    def of(spec: JDTSpec) -> "JDTLoss":
        return JDTLoss.of_family(spec, spec.active_hard, spec.active_soft, spec.class_weights)

    @staticmethod
    def of_family(
        spec: JaccardFamily,
        active_hard: ActiveInMetric,
        active_soft: ActiveInMetric,
        class_weights: Sequence[float] | None = None,
    ) -> "JDTLoss":
        """The metric loss of a task term or of a distillation term; 255 is ignored."""
        return JDTLoss(
            miou_d=spec.miou_d,
            miou_i=spec.miou_i,
            miou_c=spec.miou_c,
            alpha=spec.alpha,
            beta=spec.beta,
            gamma=spec.gamma,
            smooth=spec.smooth,
            norm=spec.norm,
            log_loss=spec.log_loss,
            threshold=spec.threshold,
            ignore_index=IGNORED,
            class_weights=class_weights,
            active_hard=active_hard,
            active_soft=active_soft,
            reduce=spec.reduce,
            overlap=spec.overlap,
        )

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        valid = checked_pixels(logits, label, self.ignore_index, keep_mask)
        hard = is_hard(label)
        sums = sums_of(logits, label, valid, self.norm)
        if self._mode(hard) in ("probability", "both"):
            sums = sums._replace(largest_label=_largest(logits, label, valid, with_label=self._mode(hard) == "both"))
        products = None if self.overlap == "minimum" or hard else sums_of(logits, label, valid, 2).intersection
        return self.of_sums(sums, hard, products)

    def takes_label_sums(self, hard: bool) -> bool:
        """Whether `of_sums` needs nothing but the sums that other losses share."""
        return self._mode(hard) in ("all", "present") and (hard or self.overlap == "minimum")

    def _mode(self, hard: bool) -> ActiveInMetric:
        return self.active_hard if hard else self.active_soft

    def of_sums(self, sums: Sums, hard: bool, products: Tensor | None = None) -> Tensor:
        """The loss, a scalar, of sums (B, C) that were taken with this loss's norm; `hard` says whether the labels were.

        products: sum p·y (B, C) where it stands for tp in T.
        """
        check_class_weights(self.class_weights, sums.predicted.shape[1])
        mode = self._mode(hard)
        over_ranks = self.reduce == "global" and among_others()
        if over_ranks and products is None and self.miou_i == self.miou_c == 0:
            # First, so that every process talks to the others in the same way, also where the kernel serves only some of them.
            sums = tables_over_ranks(sums) if isinstance(sums, SumTables) else _over_ranks(sums.over_batch())
            over_ranks = False
        exact = partial(self._of_plain_sums, mode=mode, products=products, over_ranks=over_ranks)
        # The kernel knows no powers of numbers below 0.
        if (
            not over_ranks
            and products is None
            and mode in ("all", "present")
            and (self.gamma == 1 or not self._may_be_negative())
        ):
            recipe = RatioOf(
                self.miou_d, self.miou_i, self.miou_c, self.alpha, self.beta, self.gamma, self.smooth, self.threshold,
                self.log_loss, every_class=mode == "all",
            )  # fmt: skip
            value = by_kernel(sums, recipe, self.class_weights, exact)
            if value is not None:
                return value
        return exact(sums)

    def _of_plain_sums(self, sums: Sums, mode: ActiveInMetric, products: Tensor | None, over_ranks: bool) -> Tensor:
        """`of_sums` by torch's own operations."""
        loss = sums.intersection.new_zeros(())
        if self.miou_d > 0:
            whole, common = sums.over_batch(), None if products is None else products.sum(0, keepdim=True)
            if over_ranks:
                whole, common = _over_ranks(whole), None if common is None else sum_over_ranks(common)
            terms, active = self._terms(whole, mode, common)
            loss = loss + self.miou_d * _mean_over_images(terms, active, _as_it_is)
        if self.miou_i > 0 or self.miou_c > 0:
            terms, active = self._terms(sums, mode, products)
            total = sum_over_ranks if over_ranks else _as_it_is
            loss = loss + self.miou_i * _mean_over_images(terms, active, total)
            loss = loss + self.miou_c * _mean_over_classes(terms, active, total)
        return loss

    def _terms(self, sums: Sums, mode: ActiveInMetric, products: Tensor | None) -> tuple[Tensor, Tensor]:
        """Each class's term, and bool which ones are averaged over; both (B, C), or (1, C) for sums over the batch."""
        tp = sums.intersection
        error = self.alpha * (sums.predicted - tp) + self.beta * (sums.labelled - tp)
        tp = tp if products is None else products
        if self.log_loss:
            terms = torch.log1p(
                error / (tp + self.smooth)
            )  # = -log T; the quotient T itself would round to 1 near a perfect match
        else:
            total = tp + error + self.smooth
            terms = error / total.masked_fill(total == 0, 1.0)  # = 1 - T; an empty class without smoothing has no error
        if self.gamma != 1:
            # Rounding may leave -1e-8, whose power is NaN. Only where 1 - T may truly be below 0 it keeps its sign.
            terms = (terms if self._may_be_negative() else terms.clamp(min=0)) ** self.gamma
        if self.class_weights is not None:
            terms = terms * self.class_weights.to(terms.dtype)
        active = torch.ones_like(terms, dtype=torch.bool) if mode == "all" else sums.largest_label > self.threshold
        return terms, active

    def _may_be_negative(self) -> bool:
        """Whether 1 - T can be below 0: fp = sum p² - sum p·y can be, and only alpha = beta makes the error a sum of squares."""
        return self.norm == 2 and self.alpha != self.beta

    def _check_arguments(self) -> None:
        """Refuse arguments without a meaning or a finite value. Raises ArgumentError, which names the first of them."""
        means = [self.miou_d, self.miou_i, self.miou_c]
        factors = [self.alpha, self.beta, self.smooth]
        modes, known = [self.active_hard, self.active_soft], get_args(ActiveInMetric)
        fault = ""
        if not (min(means) >= 0 and sum(means) > 0):
            fault = f"miou_d, miou_i, miou_c {means}, wanted none below 0 and one above"
        elif not min(factors) >= 0:
            fault = f"alpha, beta, smooth {factors}, wanted none below 0"
        elif not self.gamma >= 1:
            fault = f"gamma {self.gamma}, wanted at least 1 (below, a perfect match has an infinite gradient)"
        elif self.norm not in (1, 2):
            fault = f"norm {self.norm}, wanted 1 or 2"
        elif self._may_be_negative() and self.gamma % 1:
            fault = f"gamma {self.gamma} with norm 2 and alpha other than beta, wanted a whole gamma (1 - T may be below 0 there)"
        elif self.log_loss and self.smooth == 0:
            fault = f"log_loss with smooth {self.smooth}, wanted smooth above 0 (a missed class has no finite logarithm)"
        elif not set(known).issuperset(modes):
            fault = f"active_hard, active_soft {modes}, wanted {', '.join(map(repr, known))}"
        elif self.overlap not in get_args(Overlap):
            fault = f"overlap '{self.overlap}', wanted 'minimum' or 'product'"
        elif self.overlap == "product" and self.norm == 2:
            fault = "overlap 'product' with norm 2, which has products already; wanted norm 1"
        elif self.reduce not in ("local", "global"):
            fault = f"reduce '{self.reduce}', wanted 'local' or 'global'"
        if fault:
            raise ArgumentError(f"JDTLoss got {fault}")


@torch.no_grad()
def _largest(logits: Tensor, label: Tensor, valid: Tensor | None, with_label: bool) -> Tensor:
    """The largest p, or p + y, of each image and class over the valid pixels, (B, C); 0 without any.

    Arguments as `plain_sums` takes them.
    """
    flat = finite_where_ignored(logits, valid).reshape(*logits.shape[:2], -1)
    values = flat.softmax(1, dtype=sum_dtype(logits))
    if with_label and is_hard(label):
        ids = label.long().reshape(len(values), 1, -1)
        ids = ids if valid is None else ids.masked_fill(~valid.reshape(len(values), 1, -1), 0)
        values = values.scatter_add(1, ids, torch.ones_like(values[:, :1]))
    elif with_label:
        values = values + label.to(values.dtype).reshape(values.shape)
    if valid is not None:
        values = values.masked_fill(~valid.reshape(len(values), 1, -1), 0.0)
    return values.amax(2) if values.shape[2] else values.new_zeros(values.shape[:2])


def _as_it_is(values: Tensor) -> Tensor:
    """The `sum_over_ranks` of a loss that stays in its process; any shape."""
    return values


def _over_ranks(sums: Sums) -> Sums:
    """The sums over the images of all ranks, from each rank's (1, C)."""
    intersection, predicted, labelled = sum_over_ranks(torch.stack(sums[:3]))
    return sums._replace(
        intersection=intersection, predicted=predicted, labelled=labelled, largest_label=max_over_ranks(sums.largest_label)
    )


def _mean_over_images(terms: Tensor, active: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
    """Terms (B, C) -> per image the mean over its active classes, then the mean over images that have any."""
    number = active.sum(1)
    means = terms.masked_fill(~active, 0.0).sum(1) / number.clamp(min=1)
    totals = total(torch.stack([means.sum(), (number > 0).sum().to(means.dtype)]))
    return totals[0] / totals[1].clamp(min=1)


def _mean_over_classes(terms: Tensor, active: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
    """Terms (B, C) -> per class the mean over the images where it is active, then the mean over classes that have any."""
    totals = total(torch.stack([terms.masked_fill(~active, 0.0).sum(0), active.sum(0).to(terms.dtype)]))
    return (totals[0] / totals[1].clamp(min=1)).sum() / (totals[1] > 0).sum().clamp(min=1)
