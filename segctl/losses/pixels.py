"""What every loss agrees on: which pixels count, which labels are hard, and the precision of sums.

Letters: B batch, C classes, *D any number of spatial sizes, N their product.
"""

import numpy as np
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


def log_or_lowest(probabilities: Tensor) -> Tensor:
    """Their logarithm, and a finite number where they are 0, so that 0·log 0 is 0."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()


def log_likelihood(logits: Tensor, label: Tensor, valid: Tensor | None) -> Tensor:
    """sum_c y_c log p_c at every pixel, (B, *D), p = softmax(logits); what it is at ignored pixels means nothing."""
    log_p = logits.log_softmax(1, dtype=sum_dtype(logits))
    if not is_hard(label):
        return (label.to(log_p.dtype) * log_p).sum(1)
    ids = label.long() if valid is None else label.long().masked_fill(~valid, 0)
    return log_p.gather(1, ids.unsqueeze(1)).squeeze(1)


def weights_at(class_weights: Tensor, label: Tensor, valid: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Each pixel's weight sum_c w_c y_c, (B, *D), 0 where ignored; class_weights w (C,)."""
    if is_hard(label):
        ids = label.long() if valid is None else label.long().masked_fill(~valid, 0)
        weights = class_weights.to(dtype)[ids]
    else:
        weights = weighted(class_weights, label.to(dtype)).sum(1)
    return weights if valid is None else weights.masked_fill(~valid, 0.0)


def weighted(class_weights: Tensor, values: Tensor) -> Tensor:
    """w_c times the values of class c; class_weights w (C,), values (B, C, *D)."""
    return class_weights.to(values.dtype).view(-1, *[1] * (values.ndim - 2)) * values


def check_class_weights(class_weights: Tensor | None, num_classes: int) -> None:
    """Refuse weights of another number of classes than the logits have. Raises ValueError."""
    if class_weights is not None and class_weights.shape != (num_classes,):
        got = class_weights.numel()
        raise ValueError(f"class_weights has {got} numbers, wanted {num_classes}, one for each class of the logits")


def mean_over_valid(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of `values` (B, *D) over the valid pixels; 0 with a zero gradient where there are none."""
    if valid is None:
        return values.mean()
    return values.masked_fill(~valid, 0.0).sum() / valid.sum().clamp(min=1)


def count_valid(labels: Tensor) -> Tensor:
    """How many pixels of each label (B, H, W), in main memory, are not ignored: (B,).

    By NumPy, which counts bytes 150 times as fast as torch sums booleans (see benchmarks/results/valid-pixels-2026-11-23.json).
    """
    return torch.tensor([np.count_nonzero(label != IGNORE_INDEX) for label in labels.numpy()])
