"""The divergence of rows of similarities by torch's own operations, a few rows at a time."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from segctl.distillers.seen import NOWHERE

SIMILARITIES_AT_ONCE = 2**24
"""Similarities held at a time: 64 MiB in float32. Two 512×1024 crops at stride 8 have four maps of 256 MiB each."""


class SimilarityRows(NamedTuple):
    """The arguments of `segctl.distillers.rows.divergence.row_divergence`, which describes them; teachers' without gradient."""

    rows: Tensor
    keys: Tensor
    teacher_rows: Tensor
    teacher_keys: Tensor
    temperature: float
    counted: Tensor | None = None
    counted_keys: Tensor | None = None


def plain_divergence(compared: SimilarityRows) -> Tensor:
    """The divergence, a scalar. Memory is bounded: no more than SIMILARITIES_AT_ONCE are held of student and teacher each."""
    found: Tensor = _RowDivergence.apply(*compared)
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
