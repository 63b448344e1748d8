"""Rules that all losses share: which pixels count, which labels are hard, the precision of sums, and what is refused.

Letters: B batch, C classes, *D any number of spatial sizes, N their product.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.runtime.live_bytes import as_on_gpu


def is_hard(label: Tensor) -> bool:
    """Whether the label holds class ids, of any integer type, (B, *D); floating-point probabilities (B, C, *D) are soft."""
    return not label.is_floating_point()


def sum_dtype(logits: Tensor) -> torch.dtype:
    """The dtype of sums over logits of any shape: float32, because half precision overflows; float64 for float64 logits."""
    return torch.float64 if logits.dtype == torch.float64 else torch.float32


def wide_dtype(device: torch.device) -> torch.dtype:
    """float64 for sums whose last digits matter; float32 on an Apple GPU, which has no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def checked_pixels(logits: Tensor, label: Tensor, ignore_index: int | None, keep_mask: Tensor | None) -> Tensor | None:
    """`valid_pixels` of a batch whose shapes and class ids are right; every loss begins with it. Raises ArgumentError."""
    check_shapes(logits, label, keep_mask)
    valid = valid_pixels(label, ignore_index, keep_mask)
    check_class_ids(label, valid, logits.shape[1])
    return valid


def valid_pixels(label: Tensor, ignore_index: int | None, keep_mask: Tensor | None) -> Tensor | None:
    """The pixels that count, bool (B, *D); None if all do.

    label integer (B, *D) or probabilities (B, C, *D). Pixels of `ignore_index` do not count in hard labels, and pixels where
    keep_mask, bool (B, *D), is False do not count in either.
    """
    if ignore_index is None or not is_hard(label):
        return keep_mask
    # As int64 where comparing would wrap around: a uint8 with -1, an int8 with 255.
    as_it_is = label.dtype == torch.uint8 and 0 <= ignore_index <= 255
    valid = (label if as_it_is else label.long()) != ignore_index
    return valid if keep_mask is None else valid & keep_mask


def check_shapes(logits: Tensor, label: Tensor, keep_mask: Tensor | None) -> None:
    """Refuse logits without a value or a gradient, and a label or mask whose shape does not fit the logits (B, C, *D).

    Raises ArgumentError.
    """
    if logits.ndim < 2 or not logits.is_floating_point():
        raise ArgumentError(f"logits are {logits.dtype} {tuple(logits.shape)}, wanted floating point (B, C, *D)")
    if logits.shape[1] < 2:
        raise ArgumentError(
            f"logits are {tuple(logits.shape)}, wanted at least two channels: softmax over one class is always 1, "
            "and its gradient 0",
            "for one foreground class, give two channels (background, foreground) and class ids 0 and 1",
        )
    if logits.numel() == 0:
        raise ArgumentError(
            f"the batch is empty: logits are {tuple(logits.shape)}", "wanted at least one image and one pixel; skip the batch"
        )
    if label.is_complex():
        raise ArgumentError(f"label is {label.dtype}, wanted integers or floating point")
    pixels = (logits.shape[0], *logits.shape[2:])
    wanted = pixels if is_hard(label) else tuple(logits.shape)
    if tuple(label.shape) != wanted:
        kind = "class ids" if is_hard(label) else "probabilities"
        raise ArgumentError(f"label of {kind} is {tuple(label.shape)}, wanted {wanted} for logits {tuple(logits.shape)}")
    if keep_mask is not None and (keep_mask.dtype != torch.bool or tuple(keep_mask.shape) != pixels):
        raise ArgumentError(f"keep_mask is {keep_mask.dtype} {tuple(keep_mask.shape)}, wanted torch.bool {pixels}")


def check_class_ids(label: Tensor, valid: Tensor | None, num_classes: int) -> None:
    """Refuse class ids outside 0 to num_classes - 1 at valid pixels of a hard label (B, *D). Raises ArgumentError.

    valid bool (B, *D), None for all. On the CPU NumPy looks for them in a third of torch's time. On a GPU an error with the
    id would make every step wait for the device, so the device itself asserts the range, a few operations later, without the id.
    """
    if not is_hard(label) or label.device.type not in ("cpu", "cuda") or torch.compiler.is_compiling():
        return
    # NumPy cannot read a tensor of torch.func, nor one without content.
    if as_on_gpu(label) or torch._C._are_functorch_transforms_active():
        assert_class_ids(label, valid, num_classes)
        return
    ids = label.detach().long().numpy()
    wrong = ids.view(np.uint64) >= num_classes  # a negative id is a large one there
    if valid is not None:
        wrong &= valid.numpy()
    if wrong.any():
        place = tuple(np.argwhere(wrong)[0].tolist())
        raise ArgumentError(
            f"label holds class id {int(ids[place])}, wanted 0 to {num_classes - 1} for {num_classes} classes, first at {place} "
            f"of {tuple(label.shape)}",
            "name the id of ignored pixels by ignore_index, or leave them out by keep_mask",
        )


def assert_class_ids(label: Tensor, valid: Tensor | None, num_classes: int) -> None:
    """Let the device stop at ids outside the classes in a hard label (B, *D), without waiting for it; four launches for uint8."""
    unsigned = label.dtype == torch.uint8
    ids = label if unsigned and num_classes <= 255 else label.long()
    right = ids < num_classes
    if not unsigned:
        right &= ids >= 0
    if valid is not None:
        right = valid <= right  # of booleans: where valid, also right
    torch._assert_async(right.all(), f"label holds a class id outside 0 to {num_classes - 1}")


def log_or_lowest(probabilities: Tensor) -> Tensor:
    """The logarithm of probabilities of any shape; a finite number where they are 0, so that 0·log 0 is 0."""
    return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()


def blank_ignored(probabilities: Tensor, valid: Tensor | None) -> Tensor:
    """The probabilities (B, C, *D) with 0 at ignored pixels; valid bool (B, *D) or None for all.

    Call this before any other operation on them. Masking a pixel's loss afterwards is too late: a NaN there (the mean of no
    raters is 0/0) times a gradient of 0 is NaN.
    """
    return probabilities if valid is None else probabilities.masked_fill(~valid.unsqueeze(1), 0.0)


def finite_where_ignored(logits: Tensor, valid: Tensor | None) -> Tensor:
    """The logits (B, C, *D), with 0 at ignored pixels if any logit is NaN or infinite; valid bool (B, *D) or None for all.

    Only on the CPU, where the check costs a twentieth of the loss; filling them every time would cost a third. On a GPU the check
    would wait for the device, and a network that gives NaN at ignored pixels there is lost anyway.
    """
    transformed = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if valid is None or logits.device.type != "cpu" or transformed:
        return logits
    return logits if bool(logits.detach().sum(dtype=sum_dtype(logits)).isfinite()) else blank_ignored(logits, valid)


def log_likelihood(logits: Tensor, label: Tensor, valid: Tensor | None) -> Tensor:
    """sum_c y_c log p_c at every pixel, (B, *D), p = softmax(logits); values at ignored pixels are finite but meaningless.

    logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); valid bool (B, *D) or None for all.
    """
    log_p = finite_where_ignored(logits, valid).log_softmax(1, dtype=sum_dtype(logits))
    if not is_hard(label):
        return (blank_ignored(label, valid).to(log_p.dtype) * log_p).sum(1)
    ids = label.long() if valid is None else label.long().masked_fill(~valid, 0)
    return log_p.gather(1, ids.unsqueeze(1)).squeeze(1)


def weights_at(class_weights: Tensor, label: Tensor, valid: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Each pixel's weight sum_c w_c y_c, (B, *D), 0 at ignored pixels; class_weights w (C,); label as every loss takes it."""
    if is_hard(label):
        ids = label.long() if valid is None else label.long().masked_fill(~valid, 0)
        weights = class_weights.to(dtype)[ids]
    else:
        weights = times_class_weights(class_weights, blank_ignored(label, valid).to(dtype)).sum(1)
    return weights if valid is None else weights.masked_fill(~valid, 0.0)


def times_class_weights(class_weights: Tensor, values: Tensor) -> Tensor:
    """w_c times the values of class c; class_weights w (C,), values (B, C, *D)."""
    return class_weights.to(values.dtype).view(-1, *[1] * (values.ndim - 2)) * values


def weights_of(class_weights: Sequence[float] | Tensor | None, loss: str) -> Tensor | None:
    """The class weights (C,) that a loss was made with, as a tensor. Raises ArgumentError, which names the loss."""
    if class_weights is None:
        return None
    weights = torch.as_tensor(class_weights)
    if weights.ndim != 1:
        raise ArgumentError(f"{loss} got class_weights of shape {tuple(weights.shape)}, wanted one number for each class")
    if not (weights.device.type == "meta" or bool((weights >= 0).all())):
        raise ArgumentError(f"{loss} got class_weights with a number below 0")
    return weights


def check_active(active: str, loss: str) -> None:
    """Refuse classes to average over other than "present" and "all". Raises ArgumentError, which names the loss."""
    if active not in ("present", "all"):
        raise ArgumentError(f"{loss} got active {active!r}, wanted 'present' or 'all'")


def check_class_weights(class_weights: Tensor | None, num_classes: int) -> None:
    """Refuse class weights (K,) if K is not the logits' number of classes. Raises ArgumentError."""
    if class_weights is not None and class_weights.shape != (num_classes,):
        got = class_weights.numel()
        raise ArgumentError(f"class_weights has {got} numbers, wanted {num_classes}, one for each class of the logits")


def mean_over_valid(values: Tensor, valid: Tensor | None) -> Tensor:
    """Mean of `values` (B, *D) over the valid pixels, bool (B, *D) or None for all; 0 with a zero gradient if there are none."""
    if valid is None:
        return values.mean()
    return values.masked_fill(~valid, 0.0).sum() / valid.sum().clamp(min=1)


def count_valid(labels: Tensor) -> Tensor:
    """How many pixels of each label uint8 (B, H, W), in main memory, are not ignored: int64 (B,).

    NumPy counts bytes 150 times as fast as torch sums booleans (see benchmarks/results/valid-pixels-2026-11-23.json).
    """
    return torch.tensor([np.count_nonzero(label != IGNORED) for label in labels.numpy()])


def count_marked(masks: Tensor) -> Tensor:
    """How many pixels of each mask bool (B, H, W), in main memory, are True: int64 (B,)."""
    return torch.tensor([np.count_nonzero(mask) for mask in masks.numpy()])
