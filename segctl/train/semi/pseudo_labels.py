"""What the teacher says about a strong view: its probabilities on the weak view, and which pixels it is sure of."""

from typing import NamedTuple

import torch
from torch import Tensor


class Target(NamedTuple):
    """The teacher's answer for some views."""

    probabilities: Tensor
    """(B, C, H, W), without gradient."""
    real: Tensor
    """bool (B, H, W): pixels that are neither padding nor covered."""
    counted: Tensor
    """bool (B, H, W): the real pixels of which the teacher is sure enough."""


def target_of(probabilities: Tensor, real: Tensor, threshold: float) -> Target:
    """The target of views: probabilities (B, C, H, W); real bool (B, H, W); threshold from 0 to below 1."""
    sure = probabilities.amax(1) >= threshold if threshold else torch.ones_like(real)
    return Target(probabilities, real, real & sure)


def with_pasted(own: Tensor, others: Tensor | None, pasted: Tensor | None) -> Tensor:
    """The probabilities (B, C, H, W) of views with a rectangle of another picture: `others` where `pasted`, bool (B, H, W)."""
    return own if others is None or pasted is None else torch.where(pasted.unsqueeze(1), others, own)


def mean_over_counted(values: Tensor, target: Target) -> Tensor:
    """Mean over views of (the sum of values (B, H, W) over the counted pixels / how many real pixels the view has), a scalar.

    An unsure pixel counts as 0, as in arXiv:2001.07685, equation 4; padding does not count at all.
    """
    sums = values.masked_fill(~target.counted, 0.0).flatten(1).sum(1)
    return (sums / target.real.flatten(1).sum(1).clamp(min=1)).mean()
