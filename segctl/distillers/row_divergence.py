"""What both of CIRKD's terms compare: rows of similarities, in bounded memory."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

ELEMENTS = 2**24
"""Similarities held at a time: 64 MiB in float32, where two 512×1024 crops at stride 8 have four maps of 256 MiB each."""


def row_divergence(rows: Tensor, keys: Tensor, teacher_rows: Tensor, teacher_keys: Tensor, temperature: float) -> Tensor:
    """Mean over rows and groups of KL(softmax(teacher's similarities / T) || softmax(student's similarities / T)).

    rows (M, D) and keys (G, n, D): unit vectors; a row's similarities to the n keys of each of the G groups are one
    distribution.  teacher_rows (M, D') and teacher_keys (G, n, D') likewise.  Gradients flow to rows and keys.
    Returns a scalar; 0 where there are no rows.
    """
    found: Tensor = _RowDivergence.apply(rows, keys, teacher_rows.detach(), teacher_keys.detach(), temperature)
    return found


class _RowDivergence(torch.autograd.Function):
    """A few rows at a time, and their gradient with them: nothing of the size M × G × n is ever there."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, keys: Tensor, teacher_rows: Tensor, teacher_keys: Tensor, temperature: float) -> Tensor:
        groups, each = keys.shape[:2]
        flat_keys, flat_teacher_keys = keys.flatten(0, 1), teacher_keys.flatten(0, 1)
        keys_learn = ctx.needs_input_grad[1]
        total = rows.new_zeros(())
        to_rows, to_keys = torch.zeros_like(rows), torch.zeros_like(flat_keys) if keys_learn else None
        at_once = max(1, ELEMENTS // (groups * each))
        for start in range(0, len(rows), at_once):
            part = slice(start, start + at_once)
            log_t = (teacher_rows[part] @ flat_teacher_keys.T).div_(temperature).view(-1, groups, each).log_softmax(2)
            log_s = (rows[part] @ flat_keys.T).div_(temperature).view(-1, groups, each).log_softmax(2)
            p_t = log_t.exp()
            total += (p_t * log_t.sub_(log_s)).sum()
            pull = log_s.exp_().sub_(p_t).flatten(1)
            to_rows[part] = pull @ flat_keys
            if to_keys is not None:
                to_keys += pull.T @ rows[part]
        scale = 1 / max(1, len(rows) * groups)
        ctx.scale = scale / temperature
        ctx.save_for_backward(to_rows, None if to_keys is None else to_keys.view_as(keys))
        return total * scale

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        to_rows, to_keys = ctx.saved_tensors
        factor = slope * ctx.scale
        return factor * to_rows, None if to_keys is None else factor * to_keys, None, None, None
