"""Plain, fast, or fast at head stride: which sums a batch gets, and how to turn the fast ones off."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from segctl.losses.pixels import finite_where_ignored
from segctl.losses.sums.at_stride import SoftAtStride, stride_sums
from segctl.losses.sums.fast import block_sums
from segctl.losses.sums.on_gpu import checked_compiled_sums, checked_sums
from segctl.losses.sums.plain import Sums, plain_sums
from segctl.runtime.live_bytes import as_on_gpu, counting_bytes

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
    Under torch.compile the plain ones are taken, because the compiler fuses them by itself. On a GPU they are compiled here, and
    the fast ones are for where that fails.
    """
    suits = logits.device.type in ("cpu", "cuda") and not label.requires_grad and logits.numel() >= WORTHWHILE
    if torch.compiler.is_compiling() or _plain.get() or counting_bytes() or not suits:
        return plain_sums(logits, label, valid, norm, with_log)
    compiled = checked_compiled_sums(logits, label, valid, norm, with_log) if logits.is_cuda else None
    if compiled is not None:
        return compiled
    logits = finite_where_ignored(logits, valid)
    return block_sums(logits, label, valid, norm, with_log)


def sums_at_stride(
    logits: Tensor, label: Tensor | SoftAtStride, size: tuple[int, int], valid: Tensor | None, norm: int, with_log: bool = False
) -> Sums | None:
    """The sums (B, C) of `stride_sums`, or None where upsampling first is better; arguments as theirs.

    It takes maps of at most half the label's height and width, and upsampled logits of at least WORTHWHILE numbers; on a CPU,
    finite logits and matrix products in full precision; on a GPU, what `checked_sums` says. Under `plain`, torch.compile and
    torch.func it is not taken.
    """
    images, classes, *grid = logits.shape
    theirs = label.logits if isinstance(label, SoftAtStride) else None
    others = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active() or _plain.get()
    small = images * classes * size[0] * size[1] < WORTHWHILE or 2 * grid[0] > size[0] or 2 * grid[1] > size[1]
    learns = isinstance(label, Tensor) and label.requires_grad
    if others or small or learns or (theirs is not None and theirs.shape[:2] != logits.shape[:2]):
        return None
    if as_on_gpu(logits):
        return checked_sums(logits, label, size, valid, norm, with_log)
    if logits.device.type != "cpu" or torch.get_float32_matmul_precision() != "highest":
        return None
    # A product with a matrix spreads a NaN at an ignored pixel over its row; the other ways can leave it out.
    if not all(bool(maps.isfinite().all()) for maps in (logits, theirs) if maps is not None):
        return None
    return stride_sums(logits, label, size, valid, norm, with_log)
