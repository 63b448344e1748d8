"""A network and images at their own size -> class maps and counts, under the run's protocol."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import assert_never

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from segctl.data.loader import evaluation_samples, shard_names
from segctl.data.packed import PackedDataset
from segctl.data.transforms import PADDING_RGB
from segctl.engine.device import Compute
from segctl.engine.distributed import World
from segctl.metrics.counts import confusion, count
from segctl.metrics.table import CountTable, merge
from segctl.models import Segmenter, at_label_size
from segctl.schema.evaluate import EvaluateSpec, SlidingProtocol, WholeProtocol

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Scoring:
    """How images are scored: the protocol, where, with how many loader processes, and who shares the work."""

    protocol: EvaluateSpec
    compute: Compute
    workers: int = 0
    world: World = field(default_factory=World)


@dataclass(frozen=True)
class Counted:
    """Images, counted: tp/fp/fn per image and class, and one confusion matrix int64 (C, C) over them all, rows are truth."""

    table: CountTable
    confusion: NDArray[np.int64]


@torch.no_grad()
def predict(model: Segmenter, images: Tensor, protocol: EvaluateSpec, compute: Compute) -> Tensor:
    """Class maps uint8 (B, H, W) for images uint8 (B, H, W, 3) of one size, at that size.

    One scale without flip takes the argmax of the logits; several views average their probabilities first.
    """
    if protocol.scales == (1.0,) and not protocol.flip:
        return _logits(model, images, protocol, compute).argmax(1).to(torch.uint8)
    height, width = images.shape[1:3]
    total: Tensor | None = None
    for view, flipped in _views(images, protocol):
        logits = at_label_size(_logits(model, view, protocol, compute), (height, width))
        probabilities = (logits.flip(3) if flipped else logits).softmax(1)
        total = probabilities if total is None else total + probabilities
    assert total is not None
    return total.argmax(1).to(torch.uint8)


def _views(images: Tensor, protocol: EvaluateSpec) -> Iterator[tuple[Tensor, bool]]:
    """The images at every scale, mirrored too where asked: uint8 (B, h, w, 3) and whether mirrored."""
    for scale in protocol.scales:
        view = images if scale == 1 else _resized(images, scale)
        yield view, False
        if protocol.flip:
            yield view.flip(2), True


def _resized(images: Tensor, scale: float) -> Tensor:
    height, width = (max(1, round(side * scale)) for side in images.shape[1:3])
    planes = images.permute(0, 3, 1, 2).float()
    resized = F.interpolate(planes, size=(height, width), mode="bilinear", align_corners=False, antialias=scale < 1)
    return resized.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)


def _logits(model: Segmenter, images: Tensor, protocol: EvaluateSpec, compute: Compute) -> Tensor:
    """Logits (B, C, H, W) at the images' size."""
    match protocol.protocol:
        case WholeProtocol():
            return _forward(model, images, compute)
        case SlidingProtocol() as sliding:
            return _sliding_logits(model, images, sliding, compute)
        case _:
            assert_never(protocol.protocol)


def _forward(model: Segmenter, images: Tensor, compute: Compute) -> Tensor:
    with compute.autocast():
        logits = model(model.normalize(images)).logits
    return at_label_size(logits, (images.shape[1], images.shape[2]))


def _sliding_logits(model: Segmenter, images: Tensor, sliding: SlidingProtocol, compute: Compute) -> Tensor:
    """Mean of the logits of all tiles over a pixel; images smaller than a tile are padded around with the mean colour."""
    height, width = images.shape[1:3]
    padded, top, left = _pad_to(images, sliding.tile)
    total = padded.new_zeros((len(images), model.num_classes, *padded.shape[1:3]), dtype=torch.float32)
    hits = padded.new_zeros((1, 1, *padded.shape[1:3]), dtype=torch.float32)
    for y in tile_starts(padded.shape[1], sliding.tile[0], sliding.stride):
        for x in tile_starts(padded.shape[2], sliding.tile[1], sliding.stride):
            window = (slice(y, y + sliding.tile[0]), slice(x, x + sliding.tile[1]))
            total[:, :, window[0], window[1]] += _forward(model, padded[:, window[0], window[1]], compute)
            hits[:, :, window[0], window[1]] += 1
    return (total / hits)[:, :, top : top + height, left : left + width]


def tile_starts(length: int, tile: int, stride: float) -> list[int]:
    """Where tiles begin along a side so that they cover it: steps of ceil(stride · tile), the last tile flush with the end."""
    step = math.ceil(stride * tile)
    count = max(1, math.ceil((length - tile) / step) + 1)
    return [min(index * step, max(0, length - tile)) for index in range(count)]


def _pad_to(images: Tensor, tile: tuple[int, int]) -> tuple[Tensor, int, int]:
    """Images (B, H, W, 3) centred on at least one tile of mean colour, and where they begin in it."""
    height, width = images.shape[1:3]
    tall, wide = max(height, tile[0]), max(width, tile[1])
    top, left = (tall - height) // 2, (wide - width) // 2
    if (tall, wide) == (height, width):
        return images, 0, 0
    padded = images.new_tensor(PADDING_RGB).expand(len(images), tall, wide, 3).clone()
    padded[:, top : top + height, left : left + width] = images
    return padded, top, left


def count_images(
    model: Segmenter, dataset: PackedDataset, names: Sequence[str], how: Scoring, progress: Progress | None = None
) -> Counted:
    """Predict and count the named images in this process, at their own size."""
    was_training = model.training
    model.eval()
    classes, device = model.num_classes, how.compute.device
    counts = np.zeros((len(names), classes, 3), np.int64)
    matrix = np.zeros((classes, classes), np.int64)
    for index, sample in enumerate(evaluation_samples(dataset, list(names), workers=how.workers)):
        prediction = predict(model, sample.image[None].to(device), how.protocol, how.compute)
        label = sample.label[None].to(device)
        counts[index] = count(prediction, label, classes)[0].cpu().numpy()
        matrix += confusion(prediction, label, classes).cpu().numpy()
        if progress is not None:
            progress(index + 1, len(names))
    model.train(was_training)
    return Counted(CountTable(tuple(names), tuple(dataset.classes.names), counts), matrix)


def count_split(model: Segmenter, dataset: PackedDataset, split: str, how: Scoring, progress: Progress | None = None) -> Counted:
    """Every image of a split once, whatever the number of processes: each takes its stride, and all share the integers."""
    names = dataset.names(split)
    mine = shard_names(names, how.world.rank, how.world.size)
    parts = how.world.gather(count_images(model, dataset, mine, how, progress))
    table = merge([part.table for part in parts], order=names)
    return Counted(table, np.sum([part.confusion for part in parts], axis=0))
