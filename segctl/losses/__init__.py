"""(logits, label) -> scalar. One loss per file; every one is called `loss(logits, label, keep_mask=None)`.

logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D), False where a pixel is ignored.
Hard labels lose the pixels of id 255 too.  A batch without a valid pixel gives 0 and a zero gradient.

    loss                 labels       class weights   what it brings down
    CrossEntropyLoss     hard, soft   weighted mean   -log p of the label, mean over pixels
    FocalLoss            hard, soft   factors         the same, times (1 - p)^gamma
    HardPixelLoss        hard, soft   -               the same over the hardest pixels (OHEM)
    KLLoss               soft         -               cross-entropy without the labels' entropy, with a temperature
    JDTLoss              hard, soft   factors         1 - IoU, Dice or Tversky, as mIoU_D, mIoU_I or mIoU_C average it
    LovaszSoftmaxLoss    hard         -               1 - IoU, by its Lovász extension
    SoftJaccardLoss      hard, soft*  -               1 - IoU with products, a baseline
    SoftDiceLoss         hard, soft*  -               1 - Dice with products, a baseline

*: accepted, but not smallest where the prediction is the label.  docs/losses.md says which to take.
`mean_over_pixels` says whether the value is a mean over the valid pixels, so that parts of a batch add up by their pixels.
"""

from collections.abc import Callable, Sequence
from typing import assert_never

from torch import Tensor

from segctl.errors import InputError
from segctl.losses.cross_entropy import CrossEntropyLoss
from segctl.losses.focal import FocalLoss
from segctl.losses.jdt import JDTLoss
from segctl.losses.kl import KLLoss
from segctl.losses.lovasz import LovaszSoftmaxLoss
from segctl.losses.ohem import HardPixelLoss
from segctl.losses.pixels import IGNORE_INDEX
from segctl.losses.soft_labels import boundary_smooth, smooth
from segctl.losses.soft_overlap import SoftDiceLoss, SoftJaccardLoss
from segctl.losses.weighted_terms import Loss, LossTerms, NamedLoss
from segctl.schema.data import BoundaryLabels, HardLabels, LabelSpec, SmoothedLabels
from segctl.schema.loss_terms import (
    Active,
    CrossEntropySpec,
    FocalSpec,
    JaccardFamily,
    JDTSpec,
    KLSpec,
    LossTermSpec,
    LovaszSpec,
    OhemSpec,
    SoftDiceSpec,
    SoftJaccardSpec,
    term_names,
)


def build_losses(specs: Sequence[LossTermSpec], num_classes: int) -> LossTerms:
    """The task loss of a run; terms are named as `term_names` says. Raises InputError for weights of other classes."""
    for index, spec in enumerate(specs):
        if isinstance(spec, CrossEntropySpec | FocalSpec | JDTSpec):
            _check_number(f"loss.{index}", spec.class_weights, num_classes)
    named = zip(term_names(specs), specs, strict=True)
    return LossTerms([NamedLoss(name, spec.logits, spec.weight, build_loss(spec)) for name, spec in named])


def _check_number(path: str, class_weights: Sequence[float] | None, num_classes: int) -> None:
    if class_weights is not None and len(class_weights) != num_classes:
        message = f"{path}.class_weights: got {len(class_weights)} numbers, wanted {num_classes}, one for each class"
        raise InputError(message, "`segctl data info` lists the classes in their order")


def build_loss(spec: LossTermSpec) -> Loss:
    """The loss of one term; its weight and the logits it reads stay with the caller."""
    match spec:
        case CrossEntropySpec():
            return CrossEntropyLoss(class_weights=spec.class_weights)
        case FocalSpec():
            return FocalLoss(spec.gamma, class_weights=spec.class_weights)
        case OhemSpec():
            return HardPixelLoss(spec.threshold, spec.min_share)
        case KLSpec():
            return KLLoss()
        case JDTSpec():
            return build_jdt(spec, spec.active_hard, spec.active_soft, spec.class_weights)
        case LovaszSpec() | SoftJaccardSpec() | SoftDiceSpec():
            return _build_baseline(spec)
        case _:
            assert_never(spec)


def _build_baseline(spec: LovaszSpec | SoftJaccardSpec | SoftDiceSpec) -> Loss:
    match spec:
        case LovaszSpec():
            return LovaszSoftmaxLoss(spec.per_image, spec.active)
        case SoftJaccardSpec():
            return SoftJaccardLoss(spec.per_image, spec.smooth, spec.active)
        case SoftDiceSpec():
            return SoftDiceLoss(spec.per_image, spec.smooth, spec.active)
        case _:
            assert_never(spec)


def build_jdt(
    spec: JaccardFamily, active_hard: Active, active_soft: Active, class_weights: Sequence[float] | None = None
) -> JDTLoss:
    """The metric loss of a task term or of a distillation term."""
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
        ignore_index=IGNORE_INDEX,
        class_weights=class_weights,
        active_hard=active_hard,
        active_soft=active_soft,
        reduce=spec.reduce,
    )


def build_labels(spec: LabelSpec, num_classes: int) -> Callable[[Tensor], Tensor]:
    """The function from a label (B, H, W), 255 ignored, to what the task loss is given: the same as int64, or a soft label."""
    match spec:
        case HardLabels():
            return lambda label: label.long()
        case SmoothedLabels():
            return lambda label: smooth(label, num_classes, spec.epsilon)
        case BoundaryLabels():
            return lambda label: boundary_smooth(label, num_classes, spec.epsilon, spec.kernel_size)
        case _:
            assert_never(spec)
