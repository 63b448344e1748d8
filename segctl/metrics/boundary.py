"""Boundary IoU (arXiv:2103.16562): the IoU of the pixels near contours, so that large interiors cannot outweigh them.

A pixel of a class is on its boundary where a pixel of another class, or the outside of the image, is within `distance` pixels
of it (in rows and in columns). Per class, tp, fp and fn are counted between the boundary of the label's class and the boundary
of the predicted class, so the counts have the shape of counts.py and are scored by the same rules.
An ignored area makes no boundary and none of its pixels count, because the true contour in it is unknown.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.metrics.scores import score
from segctl.metrics.table import CountTable

DISTANCE_FRACTION = 0.02
"""Fraction of the image's diagonal; the paper's value for everything but small objects."""

BOUNDARY_SCORES = ("mBIoU_D", "mBIoU_I", "mBIoU_C")


def boundary_distance(height: int, width: int, fraction: float = DISTANCE_FRACTION) -> int:
    """The width of the boundary on either side of a contour, in pixels; at least 1."""
    return max(1, round(fraction * float(np.hypot(height, width))))


def boundary_counts(
    prediction: NDArray[np.integer], label: NDArray[np.integer], num_classes: int, ignore_index: int = IGNORED
) -> NDArray[np.int64]:
    """tp, fp and fn on the boundaries of one image.

    prediction, label: class ids (H, W).  Returns int64 (C, 3). Raises ArgumentError where the shapes differ.
    """
    if prediction.shape != label.shape or label.ndim != 2:
        raise ArgumentError(f"got a prediction of shape {prediction.shape} and a label of shape {label.shape}, wanted one (H, W)")
    valid = label != ignore_index
    inside = (prediction >= 0) & (prediction < num_classes)
    guess = np.where(inside, prediction, num_classes).astype(np.int32)
    truth = np.where(valid, label, num_classes).astype(np.int32)
    distance = boundary_distance(*label.shape)
    # One histogram of pairs counts everything: row or column C stands for "not on a boundary".
    truth_there = np.where(on_boundary(truth, valid, num_classes, distance), truth, num_classes)
    guess_there = np.where(on_boundary(guess, valid, num_classes, distance) & valid, guess, num_classes)
    size = num_classes + 1
    pairs = np.bincount((truth_there * size + guess_there).ravel(), minlength=size * size).reshape(size, size)
    hits = pairs.diagonal()[:num_classes]
    return np.stack([hits, pairs[:, :num_classes].sum(0) - hits, pairs[:num_classes].sum(1) - hits], axis=-1)


def boundary_scores(table: CountTable, *, binary: bool = False) -> dict[str, float | None]:
    """mBIoU_D, mBIoU_I and mBIoU_C in percent from boundary counts (N, C, 3), by the rules of `scores.score`."""
    found = score(table, binary=binary)
    return {name: found[f"mIoU_{name[-1]}"] for name in BOUNDARY_SCORES}


def on_boundary(ids: NDArray[np.integer], valid: NDArray[np.bool_], num_classes: int, distance: int) -> NDArray[np.bool_]:
    """bool (H, W): valid pixels whose window of 2 · distance + 1 pixels holds another class or leaves the image.

    ids, valid: (H, W). A window holds one class only if its smallest and its largest id are equal, so two filters, an erosion
    and a dilation, find the boundaries of all classes at once, at a cost that does not grow with their number.
    """
    kind = np.uint8 if num_classes + 2 < np.iinfo(np.uint8).max else np.uint16
    highest = np.iinfo(kind).max
    # Ids begin at 1, so that ignored pixels can be 0 for the largest id and `highest` for the smallest: neither filter sees them.
    shifted = (ids + 1).astype(kind)
    window = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    smallest = cv2.erode(np.where(valid, shifted, highest), window)
    largest = cv2.dilate(np.where(valid, shifted, 0).astype(kind), window)
    found: NDArray[np.bool_] = (smallest != largest) & valid
    # OpenCV pads the image with values that never win, so the image's own edge is added here.
    found[:distance] |= valid[:distance]
    found[-distance:] |= valid[-distance:]
    found[:, :distance] |= valid[:, :distance]
    found[:, -distance:] |= valid[:, -distance:]
    return found
