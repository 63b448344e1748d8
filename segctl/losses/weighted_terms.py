"""The weighted terms of a task loss. Terms on the same logits share one softmax where they can.

Logits that no other term needs at label size are not upsampled as a whole: see `segctl.losses.sums.at_stride`.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeGuard

from torch import Tensor, nn

from segctl.ignored import IGNORED
from segctl.losses.base import Loss
from segctl.losses.cross_entropy import CrossEntropyLoss
from segctl.losses.jdt import JDTLoss
from segctl.losses.kl import KLLoss
from segctl.losses.pixels import check_class_ids, check_shapes, checked_pixels, is_hard
from segctl.losses.sums.choose import sums_at_stride, sums_of
from segctl.losses.sums.plain import Sums
from segctl.losses.sums.threads import single_threaded
from segctl.schema.terms.loss_terms import Output


class NamedLoss(NamedTuple):
    """One weighted term of a task loss, and the logits it reads."""

    name: str
    logits: Output
    weight: float
    module: Loss[Any]


class LossTerms(nn.Module):
    """A task loss.

    forward: a function from an output's name to its logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D);
    keep_mask bool (B, *D), False wherever the label is ignored, in hard labels also where they are 255 (None: there alone) ->
    each term's value by name, a scalar, unweighted. `terms` holds the factors; the caller multiplies.
    at_head_stride: a function from an output's name to the logits (B, C, h, w) that the first one upsamples, bilinearly and with
    align_corners False. Where all terms on an output can read those, the first function is not called for it.
    """

    def __init__(self, terms: Sequence[NamedLoss]) -> None:
        super().__init__()
        self.terms = tuple(terms)
        self.losses = nn.ModuleList(term.module for term in terms)  # so that their class weights move with the module

    def forward(
        self,
        logits_of: Callable[[Output], Tensor],
        label: Tensor,
        keep_mask: Tensor | None = None,
        at_head_stride: Callable[[Output], Tensor] | None = None,
    ) -> dict[str, Tensor]:
        values: dict[str, Tensor] = {}
        checked: dict[int, Tensor | None] = {}
        for output in dict.fromkeys(term.logits for term in self.terms):
            terms = [term for term in self.terms if term.logits == output]
            sums = None if at_head_stride is None else _sums_at_stride(terms, at_head_stride(output), label, keep_mask, checked)
            if sums is not None:
                values |= {term.name: _of_sums(term.module, sums, is_hard(label)) for term in terms}
                continue
            logits = logits_of(output)
            sums = _shared_sums(terms, logits, label, keep_mask)
            for term in terms:
                values[term.name] = _value(term.module, sums, logits, label, keep_mask)
        return {term.name: values[term.name] for term in self.terms}


def _can_share(loss: Loss[Any], label: Tensor) -> TypeGuard[CrossEntropyLoss | KLLoss | JDTLoss]:
    """Whether a loss can be computed from sums over the pixels that are not 255, taken with norm 1; label of any shape."""
    match loss:
        case JDTLoss():
            return loss.norm == 1 and loss.ignore_index == IGNORED and loss.takes_label_sums(is_hard(label))
        case CrossEntropyLoss():
            return loss.ignore_index == IGNORED
        case KLLoss():
            return loss.temperature == 1 and not is_hard(label)
        case _:
            return False


def _shared_sums(terms: Sequence[NamedLoss], logits: Tensor, label: Tensor, keep_mask: Tensor | None) -> Sums | None:
    """The sums (B, C) for all terms that can share them; None unless a metric loss and at least one more term can.

    Without a metric loss, each term by itself is cheaper than the sums.
    """
    sharing = [term.module for term in terms if _can_share(term.module, label)]
    metric = [loss for loss in sharing if isinstance(loss, JDTLoss)]
    if not metric or len(sharing) < 2:
        return None
    valid = _checked(logits, label, keep_mask)
    return sums_of(logits, label, valid, norm=1, with_log=len(metric) < len(sharing))


def _sums_at_stride(
    terms: Sequence[NamedLoss], logits: Tensor, label: Tensor, keep_mask: Tensor | None, checked: dict[int, Tensor | None]
) -> Sums | None:
    """The sums (B, C) for all terms, from logits (B, C, h, w) at head stride; None unless all terms can share them.

    checked: the valid pixels, bool (B, H, W) or None for all, of a label that was checked already, by the number of classes.
    """
    if not all(_can_share(term.module, label) for term in terms):
        return None
    size = (label.shape[-2], label.shape[-1])
    classes = logits.shape[1]
    if classes not in checked:
        large = logits[:, :, :1, :1].expand(-1, -1, *size)  # no memory: only its shape and type are looked at
        with single_threaded():
            checked[classes] = _checked(large, label, keep_mask)
    valid = checked[classes]
    with_log = any(not isinstance(term.module, JDTLoss) for term in terms)
    return sums_at_stride(logits, label, size, valid, norm=1, with_log=with_log)


def _checked(logits: Tensor, label: Tensor, keep_mask: Tensor | None) -> Tensor | None:
    """The valid pixels, bool (B, *D) or None for all, of a label whose shape and ids are right; arguments as of `LossTerms`."""
    if keep_mask is None:
        return checked_pixels(logits, label, IGNORED, None)
    check_shapes(logits, label, keep_mask)
    check_class_ids(label, keep_mask, logits.shape[1])
    return keep_mask


def _value(loss: Loss[Any], sums: Sums | None, logits: Tensor, label: Tensor, keep_mask: Tensor | None) -> Tensor:
    """A loss's value, a scalar: from the shared sums (B, C) where it can use them, else from logits and label as given."""
    if sums is None or not _can_share(loss, label):
        value: Tensor = loss(logits, label, keep_mask)
        return value
    return _of_sums(loss, sums, is_hard(label))


def _of_sums(loss: Loss[Any], sums: Sums, hard: bool) -> Tensor:
    """The value of a loss that `_can_share` its sums."""
    assert isinstance(loss, CrossEntropyLoss | KLLoss | JDTLoss)
    return loss.of_sums(sums, hard) if isinstance(loss, JDTLoss) else loss.of_sums(sums)
