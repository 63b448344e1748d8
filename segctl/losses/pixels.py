"""What every loss agrees on: which pixels count, which labels are hard, and the precision of sums.

Letters: B batch, C classes, *D any number of spatial sizes, N their product.
"""

import torch
from torch import Tensor

IGNORE_INDEX = 255
"""The ignored label of every prepared dataset."""


def is_hard(label: Tensor) -> bool:
    """Class ids of any integer type are hard labels; floating-point probabilities are soft ones."""
    return not label.is_floating_point()


def sum_dtype(logits: Tensor) -> torch.dtype:
    """float32 whatever the input, because half-precision sums overflow; float64 stays float64."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def valid_pixels(label: Tensor, ignore_index: int | None, keep_mask: Tensor | None) -> Tensor | None:
    """The pixels that count, bool (B, *D); None where all do.

    Hard labels lose the pixels of `ignore_index`, and any label loses those outside `keep_mask`.
    """
    if ignore_index is None or not is_hard(label):
        return keep_mask
    valid = label.long() != ignore_index  # as int64: comparing uint8 with -1 would wrap around
    return valid if keep_mask is None else valid & keep_mask


def check_shapes(logits: Tensor, label: Tensor, keep_mask: Tensor | None) -> None:
    """Refuse a label or mask that does not lie over the logits (B, C, *D). Raises ValueError."""
    pixels = (logits.shape[0], *logits.shape[2:])
    wanted = pixels if is_hard(label) else tuple(logits.shape)
    if tuple(label.shape) != wanted:
        kind = "class ids" if is_hard(label) else "probabilities"
        raise ValueError(f"label of {kind} is {tuple(label.shape)}, wanted {wanted} for logits {tuple(logits.shape)}")
    if keep_mask is not None and (keep_mask.dtype != torch.bool or tuple(keep_mask.shape) != pixels):
        raise ValueError(f"keep_mask is {keep_mask.dtype} {tuple(keep_mask.shape)}, wanted torch.bool {pixels}")


def mean_over_valid(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of `values` (B, *D) over the valid pixels; 0 with a zero gradient where there are none."""
    if valid is None:
        return values.mean()
    return values.masked_fill(~valid, 0.0).sum() / valid.sum().clamp(min=1)
