"""Soft labels made from hard ones: label smoothing everywhere or at boundaries only, and the mean of several raters."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.losses.pixels import check_class_ids, is_hard


def smooth(label: Tensor, num_classes: int, epsilon: float, ignore_index: int = IGNORED) -> Tensor:
    """(1 - epsilon) on the true class plus epsilon / C on every class (arXiv:1512.00567 §7).

    label: integer (B, H, W); epsilon in 0 to 1. Returns float32 (B, C, H, W); ignored pixels are all zero.
    Raises ArgumentError for other arguments and, on the CPU, for ids outside the classes.
    """
    label = _checked(label, num_classes, epsilon, ignore_index)
    return _spread(label, num_classes, torch.full_like(label, epsilon, dtype=torch.float32), ignore_index)


def boundary_smooth(label: Tensor, num_classes: int, epsilon: float, kernel_size: int, ignore_index: int = IGNORED) -> Tensor:
    """Label smoothing on boundary pixels, hard labels elsewhere (arXiv:2302.05666).

    label: integer (B, H, W); epsilon in 0 to 1; kernel_size: window of `boundary`, odd. Returns float32 (B, C, H, W); ignored
    pixels are all zero. Raises ArgumentError for other arguments and, on the CPU, for ids outside the classes.
    """
    label = _checked(label, num_classes, epsilon, ignore_index)
    return _spread(label, num_classes, epsilon * boundary(label, kernel_size, ignore_index), ignore_index)


def average_raters(
    ratings: Tensor,
    num_classes: int,
    rater_mask: Tensor | None = None,
    ignore_index: int = IGNORED,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """At every pixel the share of its raters that chose each class, and whether it has any rater.

    ratings: integer (B, R, *D), one label for each of R raters. rater_mask: bool (B, R, *D), False where a rater did not look;
    pixels of `ignore_index` do not count either. weights: float (B, R), at least 0; None for equal ones, which pixels have too
    where all their raters weigh 0. Returns probabilities float32 (B, C, *D), all zero at pixels without a rater,
    and the keep_mask bool (B, *D) of the pixels with one. Raises ArgumentError for other shapes and, on the CPU, for ids outside
    the classes.
    """
    if ratings.ndim < 2 or not is_hard(ratings):
        raise ArgumentError(f"ratings are {ratings.dtype} {tuple(ratings.shape)}, wanted class ids (B, R, *D)")
    if rater_mask is not None and (rater_mask.dtype != torch.bool or rater_mask.shape != ratings.shape):
        got = f"{rater_mask.dtype} {tuple(rater_mask.shape)}"
        raise ArgumentError(f"rater_mask is {got}, wanted torch.bool {tuple(ratings.shape)}")
    counted = ratings.long() != ignore_index
    counted = counted if rater_mask is None else counted & rater_mask
    check_class_ids(ratings, counted, num_classes)
    if weights is not None and weights.shape != ratings.shape[:2]:
        raise ArgumentError(f"weights are {tuple(weights.shape)}, wanted {tuple(ratings.shape[:2])}, one for each rater")
    share = counted.float()
    if weights is not None:
        weighted = share * weights.float().view(*weights.shape, *(1 for _ in ratings.shape[2:]))
        share = torch.where(weighted.sum(1, keepdim=True) > 0, weighted, share)
    votes = torch.zeros(ratings.shape[0], num_classes, *ratings.shape[2:], device=ratings.device)
    votes.scatter_add_(1, ratings.long().masked_fill(~counted, 0), share)
    total = share.sum(1, keepdim=True)
    return votes / torch.where(total > 0, total, 1), counted.any(1)


def boundary(label: Tensor, kernel_size: int, ignore_index: int = IGNORED) -> Tensor:
    """Pixels whose window holds another class and no ignored pixel, bool (B, H, W); label: integer (B, H, W).

    The window has `kernel_size` (odd) pixels a side; at the image border only its real pixels count. Raises ArgumentError for an
    even or negative kernel_size.
    """
    if kernel_size % 2 == 0 or kernel_size < 1:
        raise ArgumentError(f"kernel_size is {kernel_size}, wanted an odd number")
    label = label.long()  # torch compares and converts no uint16
    ids = label.float()  # exact: class ids are far below 2**24, and pooling takes no integers
    # A window holds one class if its largest and its smallest id agree: two poolings, whatever the number of classes.
    largest, smallest = _window_max(ids, kernel_size), -_window_max(-ids, kernel_size)
    near_ignored = _window_max((label == ignore_index).float(), kernel_size) > 0
    return (largest != smallest) & ~near_ignored


def _window_max(values: Tensor, kernel_size: int) -> Tensor:
    """float (B, H, W) -> the largest value of each pixel's window, (B, H, W)."""
    return F.max_pool2d(values.unsqueeze(1), kernel_size, stride=1, padding=kernel_size // 2).squeeze(1)


def _checked(label: Tensor, num_classes: int, epsilon: float, ignore_index: int) -> Tensor:
    """The label as int64 (B, H, W), because torch compares no uint16. Raises ArgumentError."""
    if label.ndim != 3 or not is_hard(label):
        raise ArgumentError(f"label is {label.dtype} {tuple(label.shape)}, wanted class ids (B, H, W)")
    if not 0 <= epsilon <= 1:
        raise ArgumentError(f"epsilon is {epsilon}, wanted 0 to 1")
    label = label.long()
    check_class_ids(label, label != ignore_index, num_classes)
    return label


def _spread(label: Tensor, num_classes: int, epsilon: Tensor, ignore_index: int) -> Tensor:
    """Spread `epsilon`, float (B, H, W), of each valid pixel's mass evenly over all classes: (B, H, W) -> (B, C, H, W)."""
    classes = torch.arange(num_classes, device=label.device).view(1, -1, 1, 1)
    mass = epsilon.unsqueeze(1)
    soft = torch.where(label.unsqueeze(1) == classes, 1 - mass + mass / num_classes, mass / num_classes)
    return soft.masked_fill((label == ignore_index).unsqueeze(1), 0.0)
