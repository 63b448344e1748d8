"""Probabilities -> calibration errors: ECE and the class-wise SCE, over the dataset (_D) and per image (_I).

Letters: B batch, C classes, H W. Each image keeps ten bins per class, so memory does not grow with its pixels.
Bin k holds the valid pixels whose confidence is in [k / 10, (k + 1) / 10); a confidence of 1 belongs to the last bin.
    error = sum over bins of (pixels of the bin / all pixels) · |fraction of right pixels - mean confidence|
ECE: the confidence is the largest probability; a pixel is right if that class is the label's (arXiv:1706.04599).
SCE: for each class, the confidence is the probability of the class; a pixel is right if its label is the class; then the mean
over classes (arXiv:1904.01685). The code of the authors of arXiv:2310.19252 takes only correctly predicted pixels as right,
averages _I over the classes of an image, and prints permille, so its SCE is another number. segctl prints percent.
_D adds up the bins of all images; _I is the mean of the images' own errors over the images with a valid pixel.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

BINS = 10
_PIXELS, _CONFIDENCE, _RIGHT = 0, 1, 2
"""Columns of a bin: number of pixels, sum of their confidence, number of right pixels."""

CALIBRATION_SCORES = ("ECE_D", "ECE_I", "SCE_D", "SCE_I")


@dataclass(frozen=True, eq=False)
class CalibrationTable:
    """The bins of each image. bins: float64 (N, 1 + C, BINS, 3): of the predicted class (ECE), then of each class (SCE)."""

    names: tuple[str, ...]
    bins: NDArray[np.float64]


def fill_bins(probabilities: "Tensor", label: "Tensor", ignore_index: int = IGNORED) -> "Tensor":
    """The bins of each image.

    probabilities: float (B, C, H, W), 0 to 1.  label: int (B, H, W).  Returns float64 (B, 1 + C, BINS, 3) on the same device.
    Raises ArgumentError where the shapes do not fit.
    """
    import torch

    batch, classes = probabilities.shape[:2]
    if (batch, *probabilities.shape[2:]) != tuple(label.shape):
        raise ArgumentError(
            f"got probabilities of shape {tuple(probabilities.shape)} and a label of shape {tuple(label.shape)}, "
            "wanted (B, C, H, W) and (B, H, W)"
        )
    valid = label != ignore_index
    wide = torch.float32 if label.device.type == "mps" else torch.float64  # an Apple GPU has no float64
    found = torch.zeros((1 + classes, batch * BINS, 3), dtype=wide, device=label.device)
    first = (torch.arange(batch, device=label.device) * BINS).view(-1, 1, 1)
    confidence, guess = probabilities.max(1)
    _add(found[0], first, confidence, (guess == label) & valid, valid)
    for index in range(classes):  # one class at a time: beyond the input, memory is a few maps of (B, H, W)
        _add(found[1 + index], first, probabilities[:, index], (label == index) & valid, valid)
    return found.view(1 + classes, batch, BINS, 3).transpose(0, 1)


def _add(bins: "Tensor", first: "Tensor", confidence: "Tensor", right: "Tensor", valid: "Tensor") -> None:
    """Add the pixels of one confidence map (B, H, W) to bins (B · BINS, 3). first: int (B, 1, 1), each image's first bin."""
    import torch

    confidence = confidence.float()
    place = ((confidence * BINS).long().clamp(0, BINS - 1) + first).flatten()
    # Ignored pixels land in a bin too, with 0 in every column.
    for column, values in enumerate((valid, torch.where(valid, confidence, 0), right)):
        bins[:, column].scatter_add_(0, place, values.flatten().to(bins.dtype))


def calibration_scores(
    table: CalibrationTable, *, binary: bool = False, groups: Sequence[NDArray[np.intp]] = ()
) -> dict[str, float | None]:
    """ECE_D, ECE_I, SCE_D and SCE_I in percent; None without a valid pixel. binary: SCE is that of the foreground alone.

    groups: the places of each patient's images, int (n,); with them also ECE_G and SCE_G, the means over patients of what their
    images give.
    """
    kept = table.bins[table.bins[:, 0, :, _PIXELS].sum(-1) > 0]
    if not len(kept):
        return dict.fromkeys(CALIBRATION_SCORES)
    dataset, images = _errors(kept.sum(0)), _errors(kept)
    classes = slice(2, 3) if binary else slice(1, None)
    scores = {
        "ECE_D": dataset[0],
        "ECE_I": images[:, 0].mean(),
        "SCE_D": dataset[classes].mean(),
        "SCE_I": images[:, classes].mean(),
    }
    sums = [table.bins[rows].sum(0) for rows in groups]
    if cases := [_errors(bins) for bins in sums if bins[0, :, _PIXELS].any()]:
        scores |= {"ECE_G": np.mean([case[0] for case in cases]), "SCE_G": np.mean([case[classes].mean() for case in cases])}
    return {name: 100 * float(value) for name, value in scores.items()}


def _errors(bins: NDArray[np.float64]) -> NDArray[np.float64]:
    """The error (...) of bins (..., BINS, 3), as a fraction."""
    # Pixels / all pixels · |right / pixels - confidence / pixels| is |right - confidence| / all pixels.
    gap = np.abs(bins[..., _RIGHT] - bins[..., _CONFIDENCE]).sum(-1)
    found: NDArray[np.float64] = gap / bins[..., _PIXELS].sum(-1)
    return found
