"""Predictions and labels -> integer counts per image: arrays in, arrays out; tensors in, tensors out.

Letters: B batch, C classes, H W; labels hold train ids, `ignore_index` marks pixels that do not count.
A valid pixel is one whose label is not `ignore_index`. A prediction outside the classes is a miss of the label's class and
no class's false positive, so its number needs no second output: it is the sum of fn minus the sum of fp.

Chosen: one histogram of (label, prediction) pairs per image, everything else read off it, because one-hot masks cost
C passes over the pixels. Ids that fit a byte are woven into one 16-bit key, and OpenCV counts those: 2 to 3 ms for a
1024×2048 image on one core, where NumPy's bincount, which widens every key to 64 bits, takes 6 (benchmarks/metrics.py).
"""

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from segctl.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

TP, FP, FN = 0, 1, 2
"""Positions on the last axis of counts."""

EXACT_PIXELS = 2**24
"""OpenCV's histograms are float32, which holds every whole number up to here."""


@overload
def count(prediction: NDArray[Any], label: NDArray[Any], num_classes: int, ignore_index: int = 255) -> NDArray[np.int64]: ...
@overload
def count(prediction: "Tensor", label: "Tensor", num_classes: int, ignore_index: int = 255) -> "Tensor": ...
def count(prediction: Any, label: Any, num_classes: int, ignore_index: int = 255) -> Any:
    """True positives, false positives and false negatives per image and class.

    prediction, label: integers (B, H, W), NumPy arrays or tensors on one device.  Returns int64 (B, C, 3): tp, fp, fn.
    Raises InputError for a label id that is neither a class nor `ignore_index`.
    """
    return counts_of(pairs(prediction, label, num_classes, ignore_index))


@overload
def confusion(prediction: NDArray[Any], label: NDArray[Any], num_classes: int, ignore_index: int = 255) -> NDArray[np.int64]: ...
@overload
def confusion(prediction: "Tensor", label: "Tensor", num_classes: int, ignore_index: int = 255) -> "Tensor": ...
def confusion(prediction: Any, label: Any, num_classes: int, ignore_index: int = 255) -> Any:
    """Confusion matrix over all images: rows are the truth, columns the prediction.

    prediction, label: as for `count`.  Returns int64 (C, C). Predictions outside the classes are in no column.
    """
    return pairs(prediction, label, num_classes, ignore_index)[:, :, :num_classes].sum(0)


def counts_of(found: Any) -> Any:
    """tp, fp and fn (B, C, 3) read off what `pairs` found, int64 (B, C, C + 1), array or tensor."""
    hits = found.diagonal(0, 1, 2)
    false_positives = found[:, :, :-1].sum(1) - hits
    misses = found.sum(2) - hits
    return _stack([hits, false_positives, misses])


def pairs(prediction: Any, label: Any, num_classes: int, ignore_index: int = 255) -> Any:
    """How often each (truth, prediction) pair occurs in each image: int64 (B, C, C + 1), last column outside the classes.

    Arguments and errors are those of `count`; counts and confusion matrix can both be read off it.
    """
    if tuple(prediction.shape) != tuple(label.shape) or len(label.shape) != 3:
        raise InputError(
            f"got a prediction of shape {tuple(prediction.shape)} and a label of shape {tuple(label.shape)}, "
            "wanted two of the same shape (B, H, W)"
        )
    if not isinstance(label, np.ndarray):
        return _tensor_pairs(prediction, label, num_classes, ignore_index)
    images = zip(prediction, label, strict=True)
    found = [_image_pairs(_integers(one), _integers(other), num_classes, ignore_index) for one, other in images]
    return np.stack(found) if found else np.zeros((0, num_classes, num_classes + 1), np.int64)


def _image_pairs(prediction: NDArray[Any], label: NDArray[Any], num_classes: int, ignore_index: int) -> NDArray[np.int64]:
    """The pairs of one image: int64 (C, C + 1)."""
    prediction_bytes, label_bytes = _as_bytes(prediction), _as_bytes(label)
    if prediction_bytes is None or label_bytes is None or num_classes > 256:
        return _wide_pairs(prediction, label, num_classes, ignore_index)
    seen = _byte_pairs(prediction_bytes, label_bytes)
    if 0 <= ignore_index < 256:
        seen[ignore_index] = 0
    if seen[num_classes:].any():
        raise _strange_label(int(num_classes + np.flatnonzero(seen[num_classes:].any(1))[0]), num_classes, ignore_index)
    inside = seen[:num_classes]
    return np.concatenate([inside[:, :num_classes], inside[:, num_classes:].sum(1, keepdims=True)], axis=1)


def _byte_pairs(prediction: NDArray[np.uint8], label: NDArray[np.uint8]) -> NDArray[np.int64]:
    """How often each pair of bytes occurs: int64 (256, 256), rows are the label's."""
    seen = np.zeros(1 << 16, np.int64)
    rows = max(2, EXACT_PIXELS // max(1, label.shape[1]))
    low, high = (prediction, label) if sys.byteorder == "little" else (label, prediction)
    for top in range(0, len(label) if label.size else 0, rows):
        for keys in _keys(low[top : top + rows], high[top : top + rows]):
            seen += cv2.calcHist([keys], [0], None, [1 << 16], [0, 1 << 16]).ravel().astype(np.int64)
    return seen.reshape(256, 256)


def _keys(low: NDArray[np.uint8], high: NDArray[np.uint8]) -> Iterator[NDArray[np.uint16]]:
    """Every pixel's two bytes as one number. Pixels of the upper and the lower half take turns: neighbours are mostly alike,
    and adding to one place of a histogram twice in a row makes a core wait."""
    half, odd = divmod(len(low), 2)
    if half:
        planes = [np.ascontiguousarray(ids[part]) for part in (np.s_[:half], np.s_[half : 2 * half]) for ids in (low, high)]
        yield cv2.merge(planes).view(np.uint16).reshape(half, -1)
    if odd:
        yield cv2.merge([np.ascontiguousarray(ids[-1:]) for ids in (low, high)]).view(np.uint16)[..., 0]


def _wide_pairs(prediction: NDArray[Any], label: NDArray[Any], num_classes: int, ignore_index: int) -> NDArray[np.int64]:
    """The pairs of one image whose ids do not fit a byte."""
    valid = label != ignore_index
    truth, guess = label[valid].astype(np.int64), prediction[valid].astype(np.int64)
    strange = (truth < 0) | (truth >= num_classes)
    if strange.any():
        raise _strange_label(int(truth[strange][0]), num_classes, ignore_index)
    guess[(guess < 0) | (guess >= num_classes)] = num_classes
    columns = num_classes + 1
    return np.bincount(truth * columns + guess, minlength=num_classes * columns).reshape(num_classes, columns)


def _tensor_pairs(prediction: "Tensor", label: "Tensor", num_classes: int, ignore_index: int) -> "Tensor":
    """The pairs of tensors: through NumPy on the CPU, with one bincount for the whole batch elsewhere."""
    import torch

    if label.device.type == "cpu" and prediction.device.type == "cpu":
        found = pairs(prediction.detach().numpy(), label.detach().numpy(), num_classes, ignore_index)
        return torch.from_numpy(found)
    return checked_pairs(scatter_pairs(prediction, label, num_classes, ignore_index), ignore_index)


def queue_pairs(prediction: "Tensor", label: "Tensor", num_classes: int, ignore_index: int = 255) -> "Tensor":
    """The pairs of tensors (B, H, W), not yet checked: int64 (B, C + 2, C + 1) on their device; give them to `checked_pairs`.

    Nothing here waits for a GPU, so counting one batch runs behind the network's next one. Row C takes ignored pixels (none
    where a CPU counted), row C + 1 labels that are no class.
    """
    if label.device.type != "cpu":
        return scatter_pairs(prediction, label, num_classes, ignore_index)
    import torch

    return torch.nn.functional.pad(pairs(prediction, label, num_classes, ignore_index), (0, 0, 0, 2))


def scatter_pairs(prediction: "Tensor", label: "Tensor", num_classes: int, ignore_index: int = 255) -> "Tensor":
    """`queue_pairs` by one scatter over the whole batch: what a GPU runs, and any other device can."""
    import torch

    if prediction.is_floating_point() or label.is_floating_point():
        raise InputError(f"got a prediction of {prediction.dtype} and a label of {label.dtype}, wanted integer class ids")
    batch, rows, columns = len(label), num_classes + 2, num_classes + 1
    truth, guess = label.int(), prediction.int()
    truth = torch.where((truth >= 0) & (truth < num_classes), truth, num_classes + 1)
    truth = torch.where(label == ignore_index, num_classes, truth)
    guess = torch.where((guess >= 0) & (guess < num_classes), guess, num_classes)
    image = torch.arange(batch, device=label.device, dtype=torch.int64).view(-1, 1, 1)
    key = ((image * rows + truth) * columns + guess).flatten()
    seen = torch.zeros(batch * rows * columns, dtype=torch.int64, device=label.device)
    # Not bincount, which asks the GPU for the largest key and waits for the answer.
    seen.scatter_add_(0, key, torch.ones(1, dtype=torch.int64, device=label.device).expand_as(key))
    return seen.view(batch, rows, columns)


def checked_pairs(queued: "Tensor", ignore_index: int = 255) -> "Tensor":
    """What `queue_pairs` counted, int64 (B, C, C + 1). Raises InputError where a label was no class."""
    num_classes = queued.shape[2] - 1
    strange = int(queued[:, num_classes + 1].sum())
    if strange:
        wanted = f"wanted 0 to {num_classes - 1} or {ignore_index} (ignored)"
        raise InputError(f"{strange} pixels of a label hold ids that are no class, {wanted}")
    return queued[:, :num_classes]


def _stack(columns: list[Any]) -> Any:
    if isinstance(columns[0], np.ndarray):
        return np.stack(columns, axis=-1)
    import torch

    return torch.stack(columns, dim=-1)


def _integers(ids: NDArray[Any]) -> NDArray[Any]:
    if ids.dtype == np.bool_:
        return ids.view(np.uint8)
    if not np.issubdtype(ids.dtype, np.integer):
        raise InputError(f"got class ids of type {ids.dtype}, wanted integers")
    return ids


def _as_bytes(ids: NDArray[Any]) -> NDArray[np.uint8] | None:
    """The ids as uint8, or None where one of them does not fit."""
    if ids.dtype == np.uint8:
        return ids
    if ids.size == 0 or (ids.min() >= 0 and ids.max() <= 255):
        return ids.astype(np.uint8)
    return None


def _strange_label(found: int, num_classes: int, ignore_index: int) -> InputError:
    return InputError(f"a label holds the id {found}, wanted 0 to {num_classes - 1} or {ignore_index} (ignored)")
