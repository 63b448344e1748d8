"""CIRKD: how each pixel relates to all pixels of another image, as the teacher's pixels do.

The method is this term and those of `memory.py`, beside KD. Both compare rows of similarities by `row_divergence`.

The reference's features have 256 (teacher) and 128 (student) channels. Weights and temperature hold for any others, because a
similarity is a cosine and does not grow with the number of channels.

Pixels: of a labelled picture all, ignored and padded ones too, as in the authors' code; of a picture without label the real ones.
The memory terms need labels.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from segctl.distillers.align import Pair, check_maps, grid_of, groups_of, paired_features
from segctl.distillers.base import Term
from segctl.distillers.seen import NOWHERE, seen_pixels
from segctl.losses.pixels import sum_dtype
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import CrossImageSpec

SIMILARITIES_AT_ONCE = 2**24
"""Similarities held at a time: 64 MiB in float32. Two 512×1024 crops at stride 8 have four maps of 256 MiB each."""


def cross_image_similarity(student: Tensor, teacher: Tensor, temperature: float, seen: Tensor | None = None) -> Tensor:
    """Mean over all ordered pairs of images, each with itself included, and over rows of KL(teacher's row || student's).

    A row is the softmax of one pixel's cosine similarities, over the temperature, to all pixels of the other image.
    student (B, D, h, w), teacher (B, D', h, w); seen: bool (B, h, w), None for all. Returns a scalar. No factor temperature², as
    in the authors' code.
    Raises ArgumentError for other shapes. Source: arXiv:2204.06986, equation 6.
    """
    check_maps(student, teacher, temperature, same_channels=False)
    dtype = sum_dtype(student)
    ours = F.normalize(student.to(dtype).flatten(2), dim=1).transpose(1, 2)
    theirs = F.normalize(teacher.detach().to(dtype).flatten(2), dim=1).transpose(1, 2)
    counted, keys = (None, None) if seen is None else (seen.flatten(), seen.flatten(1))
    return row_divergence(ours.flatten(0, 1), ours, theirs.flatten(0, 1), theirs, temperature, counted, keys)


class CrossImage(Term[CrossImageSpec]):
    """`cross_image_similarity` of the features in groups of images; mean over the groups, weighted by their images."""

    mean_over_pixels = False

    def __init__(self, temperature: float = 0.1, group: int = 2) -> None:
        super().__init__()
        self.temperature, self.group = temperature, group

    @staticmethod
    def of(spec: CrossImageSpec, pair: Pair) -> "CrossImage":
        return CrossImage(spec.temperature, spec.group)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Features (B, D, h, w) and (B, D', h, w); the label's classes are not read. Returns a scalar of at least 0."""
        ours, theirs = paired_features(student, teacher)
        seen = seen_pixels(student, label, grid_of(ours))
        parts = [
            len(ours[part])
            / len(ours)
            * cross_image_similarity(ours[part], theirs[part], self.temperature, None if seen is None else seen[part])
            for part in groups_of(len(ours), self.group)
        ]
        return torch.stack(parts).sum()


def row_divergence(
    rows: Tensor,
    keys: Tensor,
    teacher_rows: Tensor,
    teacher_keys: Tensor,
    temperature: float,
    counted: Tensor | None = None,
    counted_keys: Tensor | None = None,
) -> Tensor:
    """Mean over rows and groups of KL(softmax(teacher's similarities / T) || softmax(student's similarities / T)).

    rows (M, D) and keys (G, n, D): unit vectors; a row's similarities to the n keys of each of the G groups are one
    distribution. teacher_rows (M, D') and teacher_keys (G, n, D') likewise. Gradients flow to rows and keys.
    counted: the rows that count, bool (M,), or None for all.  counted_keys: the keys that count, bool (G, n), or None for all.
    Returns a scalar; 0 if there are no rows. Memory is bounded: nothing of size M × G × n is ever held.
    """
    found: Tensor = _RowDivergence.apply(
        rows, keys, teacher_rows.detach(), teacher_keys.detach(), temperature, counted, counted_keys
    )
    return found


class _RowDivergence(torch.autograd.Function):
    """Takes a few rows at a time and computes their gradient in the forward pass, while their similarities are still there."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, keys: Tensor, teacher_rows: Tensor, teacher_keys: Tensor, temperature: float,
        counted: Tensor | None, counted_keys: Tensor | None,
    ) -> Tensor:  # fmt: skip
        """Arguments as for `row_divergence`. Keeps the gradients to rows (M, D) and keys (G, n, D) for `backward`."""
        groups, each = keys.shape[:2]
        flat_keys, flat_teacher_keys = keys.flatten(0, 1), teacher_keys.flatten(0, 1)
        keys_learn = ctx.needs_input_grad[1]  # a bank of stored keys does not
        total = rows.new_zeros(())
        to_rows, to_keys = torch.zeros_like(rows), torch.zeros_like(flat_keys) if keys_learn else None
        at_once = max(1, SIMILARITIES_AT_ONCE // (groups * each))
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            to_teacher = (teacher_rows[part] @ flat_teacher_keys.T).div_(temperature).view(-1, groups, each)
            to_student = (rows[part] @ flat_keys.T).div_(temperature).view(-1, groups, each)
            if counted_keys is not None:
                to_teacher, to_student = (x.masked_fill_(~counted_keys, NOWHERE) for x in (to_teacher, to_student))
            log_t, log_s = to_teacher.log_softmax(2), to_student.log_softmax(2)
            p_t = log_t.exp()
            divergence = p_t * log_t.sub_(log_s)
            # d KL / d similarity = (softmax of the student - softmax of the teacher) / T; 1/T follows in `scale`.
            pull = log_s.exp_().sub_(p_t).flatten(1)
            if counted is not None:
                divergence, pull = (x.mul_(counted[part].view(-1, *[1] * (x.ndim - 1))) for x in (divergence, pull))
            total += divergence.sum()
            to_rows[part] = pull @ flat_keys
            if to_keys is not None:
                to_keys += pull.T @ rows[part]
        scale = 1 / max(1, len(rows) * groups) if counted is None else 1 / (counted.sum() * groups).clamp(min=1)
        ctx.scale = scale / temperature
        ctx.save_for_backward(to_rows, None if to_keys is None else to_keys.view_as(keys))
        return total * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None, None]:
        """slope: a scalar, the gradient of the result. Returns the gradients to rows (M, D) and keys (G, n, D)."""
        to_rows, to_keys = ctx.saved_tensors
        factor = slope * ctx.scale
        return factor * to_rows, None if to_keys is None else factor * to_keys, None, None, None, None, None
