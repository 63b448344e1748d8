"""The losses once more, slowly: one pixel at a time, in float64, from the formulas in the papers."""

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray[Any, np.dtype[Any]]


def golden_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Student logits and teacher logits (2, 5, 6, 8) in float64, and a label (2, 6, 8) where 5 is ignored."""
    k = torch.arange(2 * 5 * 6 * 8, dtype=torch.float64)
    student, teacher = 3 * torch.sin(0.37 * k), 3 * torch.cos(0.23 * k)
    label = (7 * (torch.arange(2 * 6 * 8) // 3)) % 6
    return student.view(2, 5, 6, 8), teacher.view(2, 5, 6, 8), label.view(2, 6, 8)


def softmax(scores: Array, temperature: float = 1.0) -> Array:
    """One pixel's probabilities (C,)."""
    powers = [math.exp(float(score - scores.max()) / temperature) for score in scores]
    return np.array([power / sum(powers) for power in powers])


def counted_pixels(
    logits: Array, label: Array, ignore_index: int | None, keep_mask: Array | None, temperature: float = 1.0
) -> Iterator[tuple[int, Array, Array]]:
    """(image, probabilities (C,), label (C,)) of every pixel that counts."""
    batch, num_classes = logits.shape[:2]
    hard = label.ndim < logits.ndim
    for place in product(range(batch), *(range(size) for size in logits.shape[2:])):
        column = (place[0], slice(None), *place[1:])
        if keep_mask is not None and not keep_mask[place]:
            continue
        if hard and label[place] == ignore_index:
            continue
        y = np.eye(num_classes)[label[place]] if hard else label[column].astype(np.float64)
        yield place[0], softmax(logits[column].astype(np.float64), temperature), y


def slow_cross_entropy(
    logits: Array,
    label: Array,
    ignore_index: int | None,
    keep_mask: Array | None,
    class_weights: list[float] | None = None,
) -> float:
    weights = class_weights or [1.0] * logits.shape[1]
    pixels = list(counted_pixels(logits, label, ignore_index, keep_mask))
    above = sum(-weights[c] * y[c] * math.log(p[c]) for _, p, y in pixels for c in range(len(p)))
    return above / sum(weights[c] * y[c] for _, p, y in pixels for c in range(len(p)))


def slow_focal(
    logits: Array, label: Array, keep_mask: Array | None, gamma: float, class_weights: list[float] | None = None
) -> float:
    weights = class_weights or [1.0] * logits.shape[1]
    pixels = list(counted_pixels(logits, label, 255, keep_mask))
    total = sum(-weights[c] * y[c] * (1 - p[c]) ** gamma * math.log(p[c]) for _, p, y in pixels for c in range(len(p)))
    return total / len(pixels)


def slow_hard_pixels(logits: Array, label: Array, keep_mask: Array | None, threshold: float, min_share: float) -> float:
    """Sort the pixels, worst first; take while they are hard, and then on to the least number."""
    pixels = counted_pixels(logits, label, 255, keep_mask)
    errors = sorted((-sum(y[c] * math.log(p[c]) for c in range(len(p))) for _, p, y in pixels), reverse=True)
    hard = sum(error > -math.log(threshold) for error in errors)
    taken = errors[: max(hard, math.ceil(min_share * len(errors)), 1)]
    return sum(taken) / len(taken)


def slow_lovasz(logits: Array, label: Array, keep_mask: Array | None, *, per_image: bool, active: str) -> float:
    """Each class's wrong pixels, worst first: the Jaccard loss of the first k of them, times how much worse the k-th is."""
    pixels = list(counted_pixels(logits, label, 255, keep_mask))

    def of_class(chosen: list[tuple[Array, Array]], c: int) -> float:
        errors = sorted(((abs(y[c] - p[c]), y[c] == 1) for p, y in chosen), reverse=True)
        truths, total = sum(truth for _, truth in errors), 0.0
        for k, (error, _) in enumerate(errors, start=1):
            missed = sum(truth for _, truth in errors[:k])
            jaccard_loss = 1 - (truths - missed) / (truths + k - missed)
            following = errors[k][0] if k < len(errors) else 0.0
            total += jaccard_loss * (error - following)
        return total

    def of_pixels(chosen: list[tuple[Array, Array]]) -> float:
        classes = [c for c in range(logits.shape[1]) if active == "all" or any(y[c] == 1 for _, y in chosen)]
        return sum(of_class(chosen, c) for c in classes) / len(classes)

    images = [[(p, y) for image, p, y in pixels if image == wanted] for wanted in range(logits.shape[0])]
    if not per_image:
        images = [[pixel for image in images for pixel in image]]
    losses = [of_pixels(chosen) for chosen in images if chosen]
    return sum(losses) / len(losses)


def slow_overlap(
    logits: Array, label: Array, keep_mask: Array | None, *, dice: bool, per_image: bool, smooth: float, active: str
) -> float:
    pixels = list(counted_pixels(logits, label, 255, keep_mask))
    batch, num_classes = logits.shape[:2]
    groups = [[image] for image in range(batch)] if per_image else [list(range(batch))]
    errors = []
    for group in groups:
        for c in range(num_classes):
            pairs = [(p[c], y[c]) for image, p, y in pixels if image in group]
            if active == "present" and max((y for _, y in pairs), default=0.0) == 0:
                continue
            common, sizes = sum(p * y for p, y in pairs), sum(p + y for p, y in pairs)
            above, below = (2 * common, sizes) if dice else (common, sizes - common)
            errors.append(1 - (above + smooth) / (below + smooth))
    return sum(errors) / len(errors)


def slow_kl(logits: Array, label: Array, keep_mask: Array | None, temperature: float) -> float:
    pixels = [
        sum(q[c] * math.log(q[c] / p[c]) for c in range(len(p)) if q[c] > 0)
        for _, p, q in counted_pixels(logits, label, None, keep_mask, temperature)
    ]
    return temperature**2 * sum(pixels) / len(pixels)


def slow_jdt(
    logits: Array,
    label: Array,
    keep_mask: Array | None = None,
    *,
    miou_d: float = 1.0,
    miou_i: float = 0.0,
    miou_c: float = 0.0,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
    smooth: float = 1e-3,
    norm: int = 1,
    log_loss: bool = False,
    threshold: float = 0.01,
    ignore_index: int | None = None,
    class_weights: list[float] | None = None,
    active_hard: str = "present",
    active_soft: str = "all",
    overlap: str = "minimum",
) -> float:
    batch, num_classes = logits.shape[:2]
    mode = active_hard if label.ndim < logits.ndim else active_soft
    pixels = list(counted_pixels(logits, label, ignore_index, keep_mask))

    def term(images: list[int], c: int) -> float | None:
        """The term of one class over some images; None where the class is not active."""
        pairs = [(p[c], y[c]) for image, p, y in pixels if image in images]
        seen = {"present": lambda p, y: y, "probability": lambda p, y: p, "both": lambda p, y: p + y}.get(mode)
        if seen is not None and max((seen(p, y) for p, y in pairs), default=0.0) <= threshold:
            return None
        tp = sum((p + y - abs(p - y)) / 2 if norm == 1 else p * y for p, y in pairs)
        fp = sum(p**norm for p, _ in pairs) - tp
        fn = sum(y**norm for _, y in pairs) - tp
        tp = sum(p * y for p, y in pairs) if overlap == "product" else tp
        below = tp + alpha * fp + beta * fn + smooth
        index = (tp + smooth) / below if below else 1.0
        value = -math.log(index) if log_loss else 1 - index
        negative = norm == 2 and alpha != beta
        value = value if gamma == 1 else (value if negative else max(value, 0.0)) ** gamma
        return value if class_weights is None else class_weights[c] * value

    def mean(values: list[float | None]) -> float | None:
        there = [value for value in values if value is not None]
        return sum(there) / len(there) if there else None

    everything = mean([term(list(range(batch)), c) for c in range(num_classes)])
    table = [[term([image], c) for c in range(num_classes)] for image in range(batch)]
    by_image = mean([mean(row) for row in table])
    by_class = mean([mean([row[c] for row in table]) for c in range(num_classes)])
    return miou_d * (everything or 0.0) + miou_i * (by_image or 0.0) + miou_c * (by_class or 0.0)
