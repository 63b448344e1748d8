"""Predictions and labels -> integer counts per image. Arrays give arrays, tensors give tensors.

Letters: B batch, C classes, H W. Labels hold train ids; a pixel is valid if its label is not `ignore_index`.
A prediction outside the classes is a false negative of the label's class and a false positive of none. So the number of such
predictions is the sum of fn minus the sum of fp, and needs no output of its own.

One histogram of (label, prediction) pairs per image gives every other count; one-hot masks would cost C passes over the pixels.
Ids that fit a byte are joined into one 16-bit key, and OpenCV counts the keys, two to three times as fast as NumPy's bincount,
which widens every key to 64 bits (see benchmarks/results/metrics-2026-11-23.json).
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

TP, FP, FN = 0, 1, 2
"""Positions on the last axis of counts."""

EXACT_PIXELS = 2**24
"""OpenCV's histograms are float32, which represents every whole number up to 2^24 exactly."""


@overload
def count(prediction: NDArray[Any], label: NDArray[Any], num_classes: int, ignore_index: int = IGNORED) -> NDArray[np.int64]: ...
@overload
def count(prediction: "Tensor", label: "Tensor", num_classes: int, ignore_index: int = IGNORED) -> "Tensor": ...
def count(prediction: Any, label: Any, num_classes: int, ignore_index: int = IGNORED) -> Any:
    """True positives, false positives and false negatives per image and class.

    prediction, label: integers (B, H, W), NumPy arrays or tensors on one device.  Returns int64 (B, C, 3): tp, fp, fn.
    Raises ArgumentError for different shapes, ids that are not integers, and labels that are neither a class nor `ignore_index`.
    """
    return counts_of(pairs(prediction, label, num_classes, ignore_index))


@overload
def confusion(
    prediction: NDArray[Any], label: NDArray[Any], num_classes: int, ignore_index: int = IGNORED
) -> NDArray[np.int64]: ...
@overload
def confusion(prediction: "Tensor", label: "Tensor", num_classes: int, ignore_index: int = IGNORED) -> "Tensor": ...
def confusion(prediction: Any, label: Any, num_classes: int, ignore_index: int = IGNORED) -> Any:
    """Confusion matrix over all images: rows are the truth, columns the prediction.

    prediction, label: as for `count`.  Returns int64 (C, C). Predictions outside the classes are in no column.
    """
    return pairs(prediction, label, num_classes, ignore_index)[:, :, :num_classes].sum(0)


def counts_of(found: Any) -> Any:
    """tp, fp and fn int64 (B, C, 3) from the result of `pairs`, int64 (B, C, C + 1), array or tensor."""
    hits = found.diagonal(0, 1, 2)
    false_positives = found[:, :, :-1].sum(1) - hits
    misses = found.sum(2) - hits
    return _stack([hits, false_positives, misses])


def pairs(prediction: Any, label: Any, num_classes: int, ignore_index: int = IGNORED) -> Any:
    """How often each (truth, prediction) pair occurs in each image: int64 (B, C, C + 1); the last column is outside the classes.

    Arguments and errors are those of `count`. Both the counts and the confusion matrix follow from it.
    """
    if tuple(prediction.shape) != tuple(label.shape) or len(label.shape) != 3:
        raise ArgumentError(
            f"got a prediction of shape {tuple(prediction.shape)} and a label of shape {tuple(label.shape)}, "
            "wanted two of the same shape (B, H, W)"
        )
    if not isinstance(label, np.ndarray):
        return _tensor_pairs(prediction, label, num_classes, ignore_index)
    images = zip(prediction, label, strict=True)
    found = [_image_pairs(_integers(one), _integers(other), num_classes, ignore_index) for one, other in images]
    return np.stack(found) if found else np.zeros((0, num_classes, num_classes + 1), np.int64)


def _image_pairs(prediction: NDArray[Any], label: NDArray[Any], num_classes: int, ignore_index: int) -> NDArray[np.int64]:
    """The pairs of one image, ids (H, W): int64 (C, C + 1)."""
    prediction_bytes, label_bytes = _as_bytes(prediction), _as_bytes(label)
    if prediction_bytes is None or label_bytes is None or num_classes > 256:
        return _wide_pairs(prediction, label, num_classes, ignore_index)
    seen = _byte_pairs(prediction_bytes, label_bytes)
    if 0 <= ignore_index < 256:
        seen[ignore_index] = 0  # ignored pixels are cheaper to count and forget than to mask
    if seen[num_classes:].any():
        raise _strange_label(int(num_classes + np.flatnonzero(seen[num_classes:].any(1))[0]), num_classes, ignore_index)
    inside = seen[:num_classes]
    return np.concatenate([inside[:, :num_classes], inside[:, num_classes:].sum(1, keepdims=True)], axis=1)


def _byte_pairs(prediction: NDArray[np.uint8], label: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each pair of bytes occurs in one image (H, W): int64 (256, 256), rows are the label's."""
    seen = np.zeros(1 << 16, np.int64)
    # Bands of rows, so that no bin of a band exceeds what float32 counts exactly.
    rows = max(2, EXACT_PIXELS // max(1, label.shape[1]))
    low, high = (prediction, label) if sys.byteorder == "little" else (label, prediction)
    for top in range(0, len(label) if label.size else 0, rows):
        for keys in _keys(low[top : top + rows], high[top : top + rows]):
            seen += cv2.calcHist([keys], [0], None, [1 << 16], [0, 1 << 16]).ravel().astype(np.int64)
    return seen.reshape(256, 256)


def _keys(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> Iterator[NDArray[np.uint16]]:
    """The two bytes of every pixel as one 16-bit number, for ids uint8 (H, W).

    Pixels of the upper and the lower half alternate. Neighbours are mostly equal, and a core that adds to the same bin twice in
    a row waits for its own first write; pixels from two places rarely share a bin.
    """
    half, odd = divmod(len(low), 2)
    if half:
        planes = [np.ascontiguousarray(ids[part]) for part in (np.s_[:half], np.s_[half : 2 * half]) for ids in (low, high)]
        yield cv2.merge(planes).view(np.uint16).reshape(half, -1)
    if odd:
        yield cv2.merge([np.ascontiguousarray(ids[-1:]) for ids in (low, high)]).view(np.uint16)[..., 0]


def _wide_pairs(prediction: NDArray[Any], label: NDArray[Any], num_classes: int, ignore_index: int) -> NDArray[np.int64]:
    """The pairs of one image (H, W) whose ids do not fit a byte: int64 (C, C + 1)."""
    valid = label != ignore_index
    truth, guess = label[valid].astype(np.int64), prediction[valid].astype(np.int64)
    strange = (truth < 0) | (truth >= num_classes)
    if strange.any():
        raise _strange_label(int(truth[strange][0]), num_classes, ignore_index)
    guess[(guess < 0) | (guess >= num_classes)] = num_classes
    columns = num_classes + 1
    return np.bincount(truth * columns + guess, minlength=num_classes * columns).reshape(num_classes, columns)


def _tensor_pairs(prediction: "Tensor", label: "Tensor", num_classes: int, ignore_index: int) -> "Tensor":
    """The pairs of tensors (B, H, W): through NumPy on a CPU, in one pass over the whole batch on other devices."""
    import torch

    if label.device.type == "cpu" and prediction.device.type == "cpu":
        found = pairs(prediction.detach().numpy(), label.detach().numpy(), num_classes, ignore_index)
        return torch.from_numpy(found)
    return checked_pairs(scatter_pairs(prediction, label, num_classes, ignore_index), ignore_index)


def queue_pairs(prediction: "Tensor", label: "Tensor", num_classes: int, ignore_index: int = IGNORED) -> "Tensor":
    """The unchecked pairs of tensors (B, H, W): int64 (B, C + 2, C + 1) on their device, for `checked_pairs`.

    Nothing here waits for a GPU, so it can count one batch while the host prepares the next. Row C holds ignored pixels (zeros
    where a CPU counted), row C + 1 pixels whose label is not a class.
    """
    if label.device.type != "cpu":
        return scatter_pairs(prediction, label, num_classes, ignore_index)
    import torch

    return torch.nn.functional.pad(pairs(prediction, label, num_classes, ignore_index), (0, 0, 0, 2))


def scatter_pairs(prediction: "Tensor", label: "Tensor", num_classes: int, ignore_index: int = IGNORED) -> "Tensor":
    """`queue_pairs` by one scatter over the whole batch: what a GPU runs, and any other device can.

    prediction, label: integers (B, H, W).  Returns int64 (B, C + 2, C + 1), as `queue_pairs` does.
    """
    import torch

    if prediction.is_floating_point() or label.is_floating_point():
        raise ArgumentError(f"got a prediction of {prediction.dtype} and a label of {label.dtype}, wanted integer class ids")
    batch, rows, columns = len(label), num_classes + 2, num_classes + 1
    truth, guess = label.int(), prediction.int()
    truth = torch.where((truth >= 0) & (truth < num_classes), truth, num_classes + 1)
    truth = torch.where(label == ignore_index, num_classes, truth)
    guess = torch.where((guess >= 0) & (guess < num_classes), guess, num_classes)
    image = torch.arange(batch, device=label.device, dtype=torch.int64).view(-1, 1, 1)
    key = ((image * rows + truth) * columns + guess).flatten()
    seen = torch.zeros(batch * rows * columns, dtype=torch.int64, device=label.device)
    # bincount would ask the GPU for the largest key and wait for it.
    seen.scatter_add_(0, key, torch.ones(1, dtype=torch.int64, device=label.device).expand_as(key))
    return seen.view(batch, rows, columns)


def checked_pairs(queued: "Tensor", ignore_index: int = IGNORED) -> "Tensor":
    """The pairs int64 (B, C, C + 1) of what `queue_pairs` counted. Raises ArgumentError if a label id is not a class."""
    num_classes = queued.shape[2] - 1
    strange = int(queued[:, num_classes + 1].sum())
    if strange:
        wanted = f"wanted 0 to {num_classes - 1} or {ignore_index} (ignored)"
        raise ArgumentError(f"{strange} pixels of a label have an id that is not a class, {wanted}")
    return queued[:, :num_classes]


def _stack(columns: list[Any]) -> Any:
    if isinstance(columns[0], np.ndarray):
        return np.stack(columns, axis=-1)
    import torch

    return torch.stack(columns, dim=-1)


def _integers(ids: NDArray[Any]) -> NDArray[Any]:
    """Class ids of any shape, Booleans as uint8. Raises ArgumentError for other types."""
    if ids.dtype == np.bool_:
        return ids.view(np.uint8)
    if not np.issubdtype(ids.dtype, np.integer):
        raise ArgumentError(f"got class ids of type {ids.dtype}, wanted integers")
    return ids


def _as_bytes(ids: NDArray[Any]) -> NDArray[np.uint8] | None:
    """The ids (H, W) as uint8, or None where one of them does not fit."""
    if ids.dtype == np.uint8:
        return ids
    if ids.size == 0 or (ids.min() >= 0 and ids.max() <= 255):
        return ids.astype(np.uint8)
    return None


def _strange_label(found: int, num_classes: int, ignore_index: int) -> ArgumentError:
    return ArgumentError(f"a label has the id {found}, wanted 0 to {num_classes - 1} or {ignore_index} (ignored)")
