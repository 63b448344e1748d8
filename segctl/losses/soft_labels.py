"""Soft labels made from hard ones: label smoothing everywhere or at boundaries only, and the mean of several raters."""

import torch
import torch.nn.functional as F
from torch import Tensor

from segctl.losses.pixels import IGNORE_INDEX


def smooth(label: Tensor, num_classes: int, epsilon: float, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """(1 - epsilon) on the true class plus epsilon / C on every class (arXiv:1512.00567 §7).

    label: integer (B, H, W).  Returns float32 (B, C, H, W); ignored pixels are all zero.
    """
    return _spread(label, num_classes, torch.full_like(label, epsilon, dtype=torch.float32), ignore_index)


def boundary_smooth(
    label: Tensor, num_classes: int, epsilon: float, kernel_size: int, ignore_index: int = IGNORE_INDEX
) -> Tensor:
    """Label smoothing on boundary pixels, hard labels elsewhere (arXiv:2302.05666).

    label: integer (B, H, W).  Returns float32 (B, C, H, W); ignored pixels are all zero.
    """
    return _spread(label, num_classes, epsilon * boundary(label, kernel_size, ignore_index), ignore_index)


def average_raters(
    ratings: Tensor, num_classes: int, rater_mask: Tensor | None = None, ignore_index: int = IGNORE_INDEX
) -> tuple[Tensor, Tensor]:
    """At every pixel the share of its raters that chose each class, and whether it has any.

    ratings: integer (B, R, *D), one label a rater.  rater_mask: bool (B, R, *D), False where a rater did not look; pixels of
    `ignore_index` are not counted either.  Returns probabilities float32 (B, C, *D), all zero where nobody counts, and
    the keep_mask bool (B, *D) of the other pixels.
    """
    if rater_mask is not None and (rater_mask.dtype != torch.bool or rater_mask.shape != ratings.shape):
        got = f"{rater_mask.dtype} {tuple(rater_mask.shape)}"
        raise ValueError(f"rater_mask is {got}, wanted torch.bool {tuple(ratings.shape)}")
    counted = ratings.long() != ignore_index
    counted = counted if rater_mask is None else counted & rater_mask
    votes = torch.zeros(ratings.shape[0], num_classes, *ratings.shape[2:], device=ratings.device)
    votes.scatter_add_(1, ratings.long().masked_fill(~counted, 0), counted.float())
    number = counted.sum(1)
    return votes / number.clamp(min=1).unsqueeze(1), number > 0


def boundary(label: Tensor, kernel_size: int, ignore_index: int = IGNORE_INDEX) -> Tensor:
    """Pixels whose window holds another class and no ignored pixel, bool (B, H, W); label: integer (B, H, W).

    The window has `kernel_size` (odd) pixels a side; at the image border only its real pixels count.  A window holds one
    class exactly where its largest and smallest label agree, so two poolings of the label do, whatever the number of classes.
    """
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size is {kernel_size}, wanted an odd number")
    ids = label.float()  # exact: class ids are far below 2**24, and pooling takes no integers
    largest, smallest = _window_max(ids, kernel_size), -_window_max(-ids, kernel_size)
    near_ignored = _window_max((label == ignore_index).float(), kernel_size) > 0
    return (largest != smallest) & ~near_ignored


def _window_max(values: Tensor, kernel_size: int) -> Tensor:
    return F.max_pool2d(values.unsqueeze(1), kernel_size, stride=1, padding=kernel_size // 2).squeeze(1)


def _spread(label: Tensor, num_classes: int, epsilon: Tensor, ignore_index: int) -> Tensor:
    """Spread `epsilon`, float (B, H, W), of each valid pixel's mass evenly over all classes."""
    classes = torch.arange(num_classes, device=label.device).view(1, -1, 1, 1)
    mass = epsilon.unsqueeze(1)
    soft = torch.where(label.unsqueeze(1) == classes, 1 - mass + mass / num_classes, mass / num_classes)
    return soft.masked_fill((label == ignore_index).unsqueeze(1), 0.0)
