"""Which pixels a term sees: in a labelled picture those that its paper says, in a picture without label all but the padding.

A batch whose pictures all have labels has no mask at all (None), so terms compute there what they always did. With pictures
without labels among them, a mean over pixels becomes the mean over images of each image's mean, so that micro-batches still add
up by their images although padding differs from picture to picture. For pictures of one size without padding both are the same.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.distillers.align import GridSize
from segctl.ignored import IGNORED
from segctl.models.outputs import Outputs

NOWHERE = -1e30
"""A logit of a pixel that no softmax over pixels may see. It is finite, because the difference of two infinities is NaN."""


def unlabelled_pictures(student: Outputs) -> Tensor | None:
    """bool (B,): the pictures without label; None where every picture has one."""
    return None if student.unlabelled is None else student.unlabelled.flatten(1).any(1)


def labelled_pixels(student: Outputs, label: Tensor) -> Tensor:
    """bool (B, H, W): where a label, integer (B, H, W), is not ignored; computed once for all losses and terms of a step."""
    if "labelled" not in student.shared:
        student.shared["labelled"] = label != IGNORED
    found: Tensor = student.shared["labelled"]
    return found


def seen_pixels(student: Outputs, label: Tensor, grid: GridSize) -> Tensor | None:
    """bool (B, h, w) on a grid, nearest: all pixels of labelled pictures, and the real ones of the others; None for all.

    label: integer (B, H, W). Pixels that `copy_paste` has put into a picture without label have a label, and are seen.
    """
    lacking = unlabelled_pictures(student)
    if lacking is None or student.unlabelled is None:
        return None
    key = ("seen", grid)
    if key not in student.shared:
        real = student.unlabelled | (label != IGNORED) | ~lacking.view(-1, 1, 1)
        student.shared[key] = mask_on_grid(real, grid)
    found: Tensor = student.shared[key]
    return found


def mask_on_grid(mask: Tensor, grid: GridSize) -> Tensor:
    """bool (B, H, W) -> (B, h, w), nearest."""
    if mask.shape[1:] == grid:
        return mask
    return F.interpolate(mask.unsqueeze(1).float(), size=grid, mode="nearest").squeeze(1) > 0


def mean_over_seen(values: Tensor, seen: Tensor | None) -> Tensor:
    """Mean over images of the mean over the seen pixels of values (B, h, w); seen bool (B, h, w), or None for all."""
    if seen is None:
        return values.mean()
    sums = values.masked_fill(~seen, 0.0).flatten(1).sum(1)
    return (sums / seen.flatten(1).sum(1).clamp(min=1)).mean()


def nothing_unseen(maps: Tensor, seen: Tensor | None, value: float = 0.0) -> Tensor:
    """Maps (B, D, h, w) with `value` at the pixels that are not seen, which get no gradient; seen bool (B, h, w) or None."""
    return maps if seen is None else torch.where(seen.unsqueeze(1), maps, value)
