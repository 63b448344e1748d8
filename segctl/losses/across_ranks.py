"""Sums over all processes of a run, with gradients.

This file talks to torch.distributed itself, not through runtime/world.py: a loss with reduce="global" must work in anybody's
training loop without being given a world.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of `values` over all ranks, on every rank; any shape, equal on all ranks. Without a process group, `values`.

    In the backward pass a rank receives the sum of all ranks' gradients, because its values went into every rank's loss. DDP
    then averages over ranks, and the parameters' gradients equal those of one process with the whole batch.
    """
    if not among_others():
        return values
    total: Tensor = _Sum.apply(values)
    return total


def max_over_ranks(values: Tensor) -> Tensor:
    """The largest of all ranks' `values`, element by element, without gradient; any shape, equal on all ranks."""
    if not among_others():
        return values
    largest = values.detach().clone()
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return largest


@contextmanager
def alone() -> Iterator[None]:
    """In this context, sum over this rank alone: each rank tries whether a batch fits into its own memory."""
    global _alone
    _alone = True
    try:
        yield
    finally:
        _alone = False


_alone = False


def among_others() -> bool:
    """Whether a sum over all ranks is more than this rank's."""
    return not _alone and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        """Values of any shape, equal on all ranks -> their sum, of that shape."""
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        """The gradient of this rank's sum -> the sum of all ranks' gradients, of that shape."""
        return _summed(grads[0])


def _summed(values: Tensor) -> Tensor:
    """The sum of all ranks' values, of any shape, without gradient."""
    total = values.detach().contiguous().clone()
    dist.all_reduce(total)
    return total
