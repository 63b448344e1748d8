"""A faster way that is tried, at its first use, against torch's own operations: GPU kernels that may fail or be wrong here."""

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

_verdicts: dict[tuple[object, ...], bool] = {}
"""Whether a fast way gave right numbers, by its kind of arguments."""


def is_right(
    kind: tuple[object, ...], fast: Callable[[], list[Tensor]], exact: Callable[[], list[Tensor]], tolerance: float
) -> bool:
    """Whether the fast way gives the exact one's numbers, each tensor relative to its largest number; tried once a kind."""
    if kind in _verdicts:
        return _verdicts[kind]
    wanted, reason = exact(), ""
    try:
        found = fast()
    except Exception as error:  # a compiler can fail in as many ways as there are machines, and training need not
        first = next(iter(str(error).strip().splitlines()), "")
        reason = f"they cannot be built or run here ({type(error).__name__}: {first})"
    else:
        off = max(float((x - y).abs().max() / y.abs().max().clamp(min=1e-6)) for x, y in zip(found, wanted, strict=True))
        if not off <= tolerance:
            reason = f"they differ from torch's own operations by {off:.2g} of the largest number"
    if reason:
        text = f"the losses do not use their GPU kernels ({kind[0]}): {reason}; torch's own operations are used instead"
        warnings.warn(text, stacklevel=2)
    _verdicts[kind] = not reason
    return not reason


def device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """As a context, the device of a tensor of any shape: Triton starts kernels on the current one, which may be another."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()
