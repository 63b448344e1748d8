"""Plain or fast sums: which one a batch gets, and how to turn the fast one off."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from segctl.losses.pixels import finite_where_ignored
from segctl.losses.sums.fast import block_sums
from segctl.losses.sums.plain import Sums, plain_sums

WORTHWHILE = 1 << 20
"""Smallest number of logits for the fast sums; in a smaller batch, calling their many operations costs more than it saves."""

_plain = ContextVar("_plain", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """Inside, losses use only torch's own operations: for torch.func transforms, and to check the fast sums."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def sums_of(logits: Tensor, label: Tensor, valid: Tensor | None, norm: int, with_log: bool = False) -> Sums:
    """The sums (B, C) of `plain_sums`, or the same from `block_sums`; arguments as theirs.

    The fast sums take CPU and CUDA tensors, labels without a gradient of their own, and batches of at least WORTHWHILE logits.
    Under torch.compile the plain ones are taken, because the compiler fuses them by itself.
    """
    suits = logits.device.type in ("cpu", "cuda") and not label.requires_grad and logits.numel() >= WORTHWHILE
    if torch.compiler.is_compiling() or _plain.get() or not suits:
        return plain_sums(logits, label, valid, norm, with_log)
    logits = finite_where_ignored(logits, valid)
    return block_sums(logits, label, valid, norm, with_log)
