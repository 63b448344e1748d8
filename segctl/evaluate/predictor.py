"""A network and images of one size -> the class of each pixel, under an evaluation protocol.

Probabilities are averaged over the views of an image (scales, mirrored or not), logits over the tiles of one view.
"""

import math
from collections.abc import Callable, Iterator
from typing import assert_never, cast

import torch
from torch import Tensor

from segctl.data.batches.augment import PADDING_RGB
from segctl.models import at_label_size
from segctl.models.forward import ImageNetwork, forward_images, resized_images
from segctl.runtime.device import Compute
from segctl.schema.evaluate import EvaluateSpec, SlidingProtocol, WholeProtocol

_Window = tuple[slice, slice]
"""The rows and columns of a tile."""

TILES_AT_ONCE = 4
"""For a GPU. Four tiles of half the height and half the width take as much memory as the whole image."""

_FITTING: dict[tuple[int, int, int], int] = {}
"""How many tiles of (height, width, images) fit into this process's GPU, where `TILES_AT_ONCE` do not."""


@torch.no_grad()
def predict_classes(model: ImageNetwork, images: Tensor, protocol: EvaluateSpec, compute: Compute) -> Tensor:
    """Class maps uint8 (B, H, W) for images (B, H, W, N) of one size, at that size."""
    if _is_single_view(protocol):  # softmax keeps the order of logits, so one view needs none
        return best_classes(_logits(model, images, protocol, compute))
    return best_classes(class_probabilities(model, images, protocol, compute))


def best_classes(scores: Tensor) -> Tensor:
    """The class of the highest score, the first if there are several: scores (B, C, H, W) -> uint8 (B, H, W)."""
    return scores.max(1).indices.to(torch.uint8)  # on a CPU a quarter of argmax's time


@torch.no_grad()
def class_probabilities(model: ImageNetwork, images: Tensor, protocol: EvaluateSpec, compute: Compute) -> Tensor:
    """Probabilities float32 (B, C, H, W), the mean over the protocol's views, for images (B, H, W, N) of one size."""
    height, width = images.shape[1:3]
    total: Tensor | None = None
    views = 0
    for view, flipped in _views(images, protocol):
        logits = at_label_size(_logits(model, view, protocol, compute), (height, width))
        probabilities = (logits.flip(3) if flipped else logits).softmax(1)
        total = probabilities if total is None else total.add_(probabilities)
        views += 1
    assert total is not None
    return total.div_(views)


def _is_single_view(protocol: EvaluateSpec) -> bool:
    return protocol.scales == (1.0,) and not protocol.flip


def _views(images: Tensor, protocol: EvaluateSpec) -> Iterator[tuple[Tensor, bool]]:
    """The images at every scale, (B, h, w, N), and mirrored if the protocol says so; with whether they are mirrored."""
    for scale in protocol.scales:
        view = resized_images(images, scale)
        yield view, False
        if protocol.flip:
            yield view.flip(2), True


def _logits(model: ImageNetwork, images: Tensor, protocol: EvaluateSpec, compute: Compute) -> Tensor:
    """Logits (B, C, H, W) for images (B, H, W, N), at their size."""
    match protocol.protocol:
        case WholeProtocol():
            return _forward(model, images, compute)
        case SlidingProtocol() as sliding:
            return _sliding_logits(model, images, sliding, compute)
        case _:
            assert_never(protocol.protocol)


def _forward(model: ImageNetwork, images: Tensor, compute: Compute) -> Tensor:
    """One forward pass: logits (B, C, H, W) for images (B, H, W, N)."""
    with compute.autocast():
        found = forward_images(model, images)
    return at_label_size(found.logits, (images.shape[1], images.shape[2]), found.align_corners)


def _sliding_logits(model: ImageNetwork, images: Tensor, sliding: SlidingProtocol, compute: Compute) -> Tensor:
    """Mean logits (B, C, H, W) of all tiles that cover a pixel; images smaller than a tile are padded with the mean colour."""
    height, width = images.shape[1:3]
    padded, top, left = _pad_to(images, sliding.tile, _padding(model, images))
    total = padded.new_zeros((len(images), model.num_classes, *padded.shape[1:3]), dtype=torch.float32)
    hits = padded.new_zeros((1, 1, *padded.shape[1:3]), dtype=torch.float32)
    windows = [
        (slice(y, y + sliding.tile[0]), slice(x, x + sliding.tile[1]))
        for y in tile_starts(padded.shape[1], sliding.tile[0], sliding.stride)
        for x in tile_starts(padded.shape[2], sliding.tile[1], sliding.stride)
    ]
    for window, logits in _logits_of_windows(model, padded, windows, compute):
        total[:, :, window[0], window[1]] += logits
        hits[:, :, window[0], window[1]] += 1
    return (total / hits)[:, :, top : top + height, left : left + width]


def _logits_of_windows(
    model: ImageNetwork, images: Tensor, windows: list[_Window], compute: Compute
) -> Iterator[tuple[_Window, Tensor]]:
    """The logits (B, C, h, w) of each window of images (B, H, W, 3), in their order.

    A GPU takes several windows at once, because one hardly fills it. A person may score in tiles
    because memory is short, so where several do not fit, half as many are taken from then on.
    """
    size = (windows[0][0].stop - windows[0][0].start, windows[0][1].stop - windows[0][1].start, len(images))
    at_once = 1 if compute.device.type == "cpu" else _FITTING.get(size, TILES_AT_ONCE)
    start = 0
    while start < len(windows):
        part = windows[start : start + at_once]
        try:
            crops = [images[:, rows, columns] for rows, columns in part]
            logits = _forward(model, crops[0] if len(crops) == 1 else torch.cat(crops), compute)
        except torch.OutOfMemoryError:
            if len(part) == 1:
                raise
            at_once = _FITTING[size] = len(part) // 2
            continue
        yield from zip(part, logits.chunk(len(part)), strict=True)
        start += len(part)


@torch.no_grad()
def sliding_rows(
    model: ImageNetwork,
    size: tuple[int, int],
    read: Callable[[int, int], Tensor],
    sliding: SlidingProtocol,
    compute: Compute,
) -> Iterator[Tensor]:
    """The class map of a picture too large for memory, from top to bottom: uint8 (rows, W), the same as `predict_classes` gives.

    size: (H, W), both at least a tile.  read: for a first row and a count, these rows as (rows, W, N).
    Memory holds the sums of one tile, and of the rows in which a row of tiles overlaps the next: C · overlap · W numbers, twice.
    """
    (height, width), (tall, wide) = size, sliding.tile
    tops, lefts = tile_starts(height, tall, sliding.stride), tile_starts(width, wide, sliding.stride)
    hits = torch.zeros((1, 1, tall, width))
    above = torch.zeros((1, model.num_classes, 0, width))  # sums of rows that the tiles above have covered too
    pixels = read(0, tall)
    for top, below in zip(tops, [*tops[1:], height], strict=True):
        done = below - top  # rows that no further tile covers
        kept = torch.zeros((1, model.num_classes, tall - done, width))
        ids = torch.empty((done, width), dtype=torch.uint8)
        total, covered = torch.zeros((1, model.num_classes, tall, wide)), 0  # sums of the columns up to `covered`
        for x, beyond in zip(lefts, [*lefts[1:], width], strict=True):
            # The sums of the columns that the last tile has covered stay; those of new ones begin with what lies above.
            left = covered - x
            total[..., :left] = total[..., wide - left :].clone()
            total[..., left:] = 0
            total[:, :, : above.shape[2], left:] = above[..., covered : x + wide]
            covered = x + wide
            total += _forward(model, pixels[None, :, x : x + wide].to(compute.device), compute).cpu()
            hits[..., x : x + wide] += 1
            final = total[..., : beyond - x]
            ids[:, x:beyond] = best_classes(final[:, :, :done] / hits[:, :, :done, x:beyond])[0]
            kept[..., x:beyond] = final[:, :, done:]
        yield ids
        if below < height:
            hits[:, :, : tall - done] = hits[:, :, done:].clone()
            hits[:, :, tall - done :] = 0
            above = kept
            pixels = torch.cat([pixels[done:], read(top + tall, done)])


def tile_starts(length: int, tile: int, stride: float) -> list[int]:
    """Where tiles begin along a side of `length` pixels: every ceil(stride · tile) pixels, the last one flush with the end."""
    step = math.ceil(stride * tile)
    count = max(1, math.ceil((length - tile) / step) + 1)
    return [min(index * step, max(0, length - tile)) for index in range(count)]


def _padding(model: ImageNetwork, images: Tensor) -> Tensor:
    """The value of each band around small images: ImageNet's mean colour for three of uint8, else the training pictures' mean."""
    mean = getattr(model, "pixel_mean", None)
    if mean is None or (images.shape[3] == len(PADDING_RGB) and images.dtype == torch.uint8):
        return torch.tensor(PADDING_RGB)
    return cast("Tensor", mean).flatten().round()


def _pad_to(images: Tensor, tile: tuple[int, int], padding: Tensor) -> tuple[Tensor, int, int]:
    """Images (B, H, W, N) centred on a canvas of the mean colour, at least one tile large, and their top and left on it."""
    height, width = images.shape[1:3]
    tall, wide = max(height, tile[0]), max(width, tile[1])
    top, left = (tall - height) // 2, (wide - width) // 2
    if (tall, wide) == (height, width):
        return images, 0, 0
    padded = padding.to(images).expand(len(images), tall, wide, -1).clone()
    padded[:, top : top + height, left : left + width] = images
    return padded, top, left
