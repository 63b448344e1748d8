"""From a preset's specs to its losses and labels."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, assert_never

from torch import Tensor

from segctl.errors import InputError
from segctl.losses.base import Loss
from segctl.losses.soft_labels import average_raters, boundary_smooth, smooth
from segctl.losses.weighted_terms import LossTerms, NamedLoss
from segctl.schema.labels import BoundaryLabels, HardLabels, LabelSpec, RaterLabels, SmoothedLabels
from segctl.schema.terms.loss_terms import LossTerm, LossTermSpec, term_names


def build_losses(specs: Sequence[LossTermSpec], num_classes: int) -> LossTerms:
    """The task loss of a run; terms are named as `term_names` says. Raises InputError for class weights of other classes."""
    for index, spec in enumerate(specs):
        weights = getattr(spec, "class_weights", None)  # not every kind has them
        if weights not in (None, "auto") and len(weights) != num_classes:
            message = f"loss.{index}.class_weights: got {len(weights)} numbers, wanted {num_classes}, one for each class"
            raise InputError(message, "`segctl data info NAME` lists the classes in their order")
    named = zip(term_names(specs), specs, strict=True)
    return LossTerms([NamedLoss(name, spec.logits, spec.weight, build_loss(spec)) for name, spec in named])


def build_loss(spec: LossTermSpec) -> Loss[Any]:
    """The loss of one term, without its weight and the logits it reads."""
    return loss_class(type(spec)).of(spec)


def loss_class(spec: type[LossTerm]) -> type[Loss[Any]]:
    """The class that a spec's pointer `file.Class` names.

    The file is imported here, because schema imports no torch and cannot import the class itself.
    """
    file, name = spec.loss.split(".")
    found: type[Loss[Any]] = getattr(import_module(f"segctl.losses.{file}"), name)
    return found


def build_labels(spec: LabelSpec, num_classes: int) -> Callable[[Tensor], Tensor]:
    """The function from a label uint8 (B, H, W), 255 ignored, to the label of the task loss.

    Hard labels become int64 (B, H, W); soft ones probabilities float32 (B, C, H, W), all zero at ignored pixels. Where labels are
    those of several raters, a label alone counts as that of one rater.
    """
    match spec:
        case HardLabels():
            return lambda label: label.long()
        case SmoothedLabels():
            return lambda label: smooth(label, num_classes, spec.epsilon)
        case BoundaryLabels():
            return lambda label: boundary_smooth(label, num_classes, spec.epsilon, spec.kernel_size)
        case RaterLabels():
            return lambda label: average_raters(label.unsqueeze(1), num_classes)[0]
        case _:
            assert_never(spec)
