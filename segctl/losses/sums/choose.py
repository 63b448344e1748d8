"""One reading of the logits: which way their sums are taken, and how to turn the fast one off."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from segctl.losses.sums.fast import block_sums
from segctl.losses.sums.plain import Sums, plain_sums

WORTHWHILE = 1 << 20
"""Logits from which on the fast way is faster: below, calling its many small operations costs more than they do."""

_plain = ContextVar("_plain", default=False)


@contextmanager
def plain() -> Iterator[None]:
    """Inside, losses use nothing but torch's own operations: for torch.func transforms, and for whoever doubts the fast way."""
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


def sums_of(logits: Tensor, label: Tensor, valid: Tensor | None, norm: int, with_log: bool = False) -> Sums:
    """`plain_sums`, or the same from `block_sums`.

    The fast way serves CPU and CUDA tensors, labels without a gradient of their own, and batches that are large enough.
    Under torch.compile the plain way is taken, because the compiler fuses it by itself.
    """
    serves = logits.device.type in ("cpu", "cuda") and not label.requires_grad and logits.numel() >= WORTHWHILE
    if torch.compiler.is_compiling() or _plain.get() or not serves:
        return plain_sums(logits, label, valid, norm, with_log)
    return block_sums(logits, label, valid, norm, with_log)
