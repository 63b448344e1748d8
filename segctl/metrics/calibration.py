"""Probabilities -> how far confidence is from being right: ECE and the class-wise SCE, over the dataset (_D) and per image (_I).

Letters: B batch, C classes, H W. Only ten bins per class and image are kept, so memory does not grow with pixels.
A bin holds the valid pixels whose confidence is in [k / 10, (k + 1) / 10); 1 belongs to the last one.
    error = sum over bins of (pixels of the bin / all pixels) · |share that is right - mean confidence|
ECE: confidence is the largest probability, right is that its class is the label's (arXiv:1706.04599).
SCE: for each class, confidence is its probability and right is that the label is that class; then the mean over classes
(arXiv:1904.01685). The code of arXiv:2310.19252's authors counts only correctly predicted pixels as right there, averages over
the classes of an image in _I, and prints permille: its SCE is another number. In percent here.
_D puts the bins of all images together; _I is the mean of each image's own error over images with a valid pixel.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from segctl.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

BINS = 10
PIXELS, CONFIDENCE, RIGHT = 0, 1, 2
"""Sums kept for a bin."""

SCORE_NAMES = ("ECE_D", "ECE_I", "SCE_D", "SCE_I")


@dataclass(frozen=True, eq=False)
class CalibrationTable:
    """The bins of each image. bins: float64 (N, 1 + C, BINS, 3), first those of the predicted class, then each class's."""

    names: tuple[str, ...]
    bins: NDArray[np.float64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `from_arrays` makes the table from."""
        return {"names": np.array(self.names, dtype=np.str_), "bins": self.bins}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        return cls(tuple(map(str, arrays["names"])), arrays["bins"])


def fill_bins(probabilities: "Tensor", label: "Tensor", ignore_index: int = 255) -> "Tensor":
    """The bins of each image: probabilities float (B, C, H, W), label int (B, H, W), float64 (B, 1 + C, BINS, 3) on the device.

    One class is worked on at a time, so that memory beyond the input is a few maps of (B, H, W).
    """
    import torch

    batch, classes = probabilities.shape[:2]
    if (batch, *probabilities.shape[2:]) != tuple(label.shape):
        raise InputError(
            f"got probabilities of shape {tuple(probabilities.shape)} and a label of shape {tuple(label.shape)}, "
            "wanted (B, C, H, W) and (B, H, W)"
        )
    valid = label != ignore_index
    found = torch.zeros((1 + classes, batch * BINS, 3), dtype=torch.float64, device=label.device)
    first = (torch.arange(batch, device=label.device) * BINS).view(-1, 1, 1)
    confidence, guess = probabilities.max(1)
    _add(found[0], first, confidence, (guess == label) & valid, valid)
    for index in range(classes):
        _add(found[1 + index], first, probabilities[:, index], (label == index) & valid, valid)
    return found.view(1 + classes, batch, BINS, 3).transpose(0, 1)


def _add(bins: "Tensor", first: "Tensor", confidence: "Tensor", right: "Tensor", valid: "Tensor") -> None:
    """Add the pixels of one confidence map (B, H, W) to bins (B · BINS, 3); `first` is each image's first bin."""
    import torch

    confidence = confidence.float()
    place = ((confidence * BINS).long().clamp(0, BINS - 1) + first).flatten()
    sums = (valid.double(), torch.where(valid, confidence, 0).double(), right.double())
    for column, values in enumerate(sums):
        bins[:, column].scatter_add_(0, place, values.flatten())


def calibration_scores(table: CalibrationTable, *, binary: bool = False) -> dict[str, float | None]:
    """ECE_D, ECE_I, SCE_D and SCE_I in percent; None where there is no valid pixel. binary: SCE of the foreground alone."""
    kept = table.bins[table.bins[:, 0, :, PIXELS].sum(-1) > 0]
    if not len(kept):
        return dict.fromkeys(SCORE_NAMES)
    dataset, images = _errors(kept.sum(0)), _errors(kept)
    classes = slice(2, 3) if binary else slice(1, None)
    scores = {
        "ECE_D": dataset[0],
        "ECE_I": images[:, 0].mean(),
        "SCE_D": dataset[classes].mean(),
        "SCE_I": images[:, classes].mean(),
    }
    return {name: 100 * float(value) for name, value in scores.items()}


def _errors(bins: NDArray[np.float64]) -> NDArray[np.float64]:
    """The error of each row of bins (..., BINS, 3)."""
    gap = np.abs(bins[..., RIGHT] - bins[..., CONFIDENCE]).sum(-1)
    found: NDArray[np.float64] = gap / bins[..., PIXELS].sum(-1)
    return found
