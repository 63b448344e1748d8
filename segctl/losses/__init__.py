"""(logits, label) -> scalar. One loss per file; every one is called `loss(logits, label, keep_mask=None)`.

logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D), False where a pixel is ignored.
`mean_over_pixels` says whether the value is a mean over the valid pixels, so that parts of a batch add up by their pixels.
"""

from collections.abc import Callable
from typing import assert_never

from torch import Tensor

from segctl.losses.cross_entropy import CrossEntropyLoss
from segctl.losses.jdt import JDTLoss
from segctl.losses.kl import KLLoss
from segctl.losses.labels import boundary_smooth, smooth
from segctl.losses.pixels import IGNORE_INDEX
from segctl.schema.data import BoundaryLabels, HardLabels, LabelSpec, SmoothedLabels
from segctl.schema.losses import Active, CrossEntropySpec, JaccardFamily, JDTSpec, KLSpec, LossTermSpec

Loss = CrossEntropyLoss | KLLoss | JDTLoss


def build_loss(spec: LossTermSpec) -> Loss:
    """The loss of one term; its weight and the logits it reads stay with the caller."""
    match spec:
        case CrossEntropySpec():
            return CrossEntropyLoss(ignore_index=IGNORE_INDEX)
        case KLSpec():
            return KLLoss()
        case JDTSpec():
            return build_jdt(spec, spec.active_hard, spec.active_soft)
        case _:
            assert_never(spec)


def build_jdt(spec: JaccardFamily, active_hard: Active, active_soft: Active) -> JDTLoss:
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
        active_hard=active_hard,
        active_soft=active_soft,
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
