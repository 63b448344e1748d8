"""The sums of logits at head stride, upsampled to the label's size block by block: the large map never exists as a whole.

Upsampling (B, C, h, w) to the label's size costs more than the losses on it, because it writes, reads and keeps memory that is
tens of times the network's output. Here some rows of one image at a time are upsampled, and their softmax, their sums and their
gradient are taken while they lie in the cache. The backward pass upsamples again; it keeps nothing.

Bilinear upsampling is a product with two matrices, one for each side. Widening comes first and is small. Heightening is one
product for all classes and columns of a block, because a block has its rows first.

The softmax needs only one pass for exp: what would cost two more is done at head stride. There the largest logit of a pixel is
subtracted (upsampling is linear, so this shifts all classes of an upsampled pixel alike, and to below 0) and the logits are
multiplied by log2 e, because torch's exp2 took a quarter of the time of its exp.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.losses.pixels import is_hard, sum_dtype
from segctl.losses.sums.block import Block, gradient_of_block, sums_of_block
from segctl.losses.sums.fast import differentiable_gradient
from segctl.losses.sums.plain import Sums, first_slots, plain_sums
from segctl.losses.sums.threads import share_out, single_threaded

STRIDE_BLOCK_ELEMENTS = 1 << 19
"""Probabilities in a block, 2 MiB of float32."""
PIECES = 16
"""Pieces of the product that widens the maps, for as many threads as there can be."""
LOG2_E = 1 / math.log(2)
LEAST_STRIDE_BLOCKS = 64
"""Smallest number of blocks in a batch, so that the threads' scratch memory stays small beside the upsampled logits."""
SMALLEST_TOTAL = 2.0**-100
"""Smallest sum of 2^logits that is not close to what float32 cannot hold."""


class SoftAtStride(NamedTuple):
    """Soft labels that are softmax of upsampled logits (B, C, h', w'), a teacher's, without gradient."""

    logits: Tensor


@dataclass(frozen=True)
class Upsampling:
    """UpsampledMaps of (h, w) and the size (H, W) they are upsampled to, bilinear."""

    shape: tuple[int, int]
    size: tuple[int, int]
    align_corners: bool


class UpsampledRows(NamedTuple):
    """Some rows of an upsampled image: which, the rows [low, high) of its small map that they are made from, and the weights.

    weights (rows, high - low)
    """

    image: int
    rows: slice
    low: int
    high: int
    weights: Tensor


def _product(tall: Tensor, matrix: Tensor) -> Tensor:
    """(N, K) @ (K, M), in pieces on the threads of `share_out`, which also turns autocast off.

    A product on all cores would leave the library's own threads spinning for a fifth of a second, on cores that the blocks need.
    """
    out = tall.new_empty(len(tall), matrix.shape[1])
    pieces = list(zip(tall.chunk(PIECES), out.chunk(PIECES), strict=True))

    def work(queue: Iterator[tuple[Tensor, Tensor]]) -> None:
        for part, target in queue:
            torch.mm(part, matrix, out=target)

    share_out(work, pieces, torch.device("cpu"))
    return out


class UpsampledMaps:
    """Logits (B, C, h, w) to be upsampled some rows at a time, shifted and scaled for `_softmax`; in the precision of sums."""

    def __init__(self, maps: Tensor, size: tuple[int, int], align_corners: bool) -> None:
        self.grid = Upsampling((maps.shape[2], maps.shape[3]), size, align_corners)
        with single_threaded():
            maps = maps.detach().to(sum_dtype(maps))
            maps = (maps - maps.amax(1, keepdim=True)).mul_(LOG2_E).permute(0, 2, 1, 3).contiguous()
        self.columns = _weights(maps.shape[3], size[1], align_corners, maps.dtype)[0]
        self.wide = _product(maps.view(-1, maps.shape[3]), self.columns.T).view(*maps.shape[:3], size[1])

    def rows(self, image: int, rows: slice) -> UpsampledRows:
        weights, low, high = _weights(self.grid.shape[0], self.grid.size[0], self.grid.align_corners, self.wide.dtype)
        first, last = low[rows.start], high[rows.stop - 1]
        return UpsampledRows(image, rows, first, last, weights[rows, first:last])

    def upsample_into(self, out: Tensor, place: UpsampledRows) -> None:
        """Write the place's rows into out (R, C, W)."""
        few = self.wide[place.image, place.low : place.high]
        torch.mm(place.weights, few.view(len(few), -1), out=out.view(len(out), -1))

    def gradient_of(self, wide: Tensor) -> Tensor:
        """The gradient of the logits (B, C, h, w) from that of the widened maps (B, h, C, W), which is not scaled."""
        narrow = _product(wide.view(-1, wide.shape[3]), self.columns)
        return narrow.view(*wide.shape[:3], -1).permute(0, 2, 1, 3).contiguous()


@lru_cache(maxsize=32)
def _weights(length: int, wanted: int, align_corners: bool, dtype: torch.dtype) -> tuple[Tensor, list[int], list[int]]:
    """The weights (wanted, length) by which torch upsamples; each row's first nonzero weight, and one past its last.

    They are what torch's kernel makes of the unit vectors, so its rounding of the places is in them.
    """
    with torch.inference_mode(False), torch.no_grad():
        units = torch.eye(length, dtype=dtype).view(1, length, length, 1)
        found = F.interpolate(units, (wanted, 1), mode="bilinear", align_corners=align_corners)
        weights = found[0, :, :, 0].T.contiguous()
    used = (weights != 0).int()
    return weights, used.argmax(1).tolist(), (length - used.flip(1).argmax(1)).tolist()


def _softmax(out: Tensor, logits: Tensor, valid: Tensor | None, with_log: bool) -> Tensor | None:
    """Softmax in base 2 of logits (R, C, n), none of them above 0, into out (R, C, n); 0 where valid (R, n) is False.

    Returns log2 of the sum over classes of 2^logits, (R, 1, n), if with_log, else None.
    """
    total, largest = torch.exp2(logits, out=out).sum(1, keepdim=True), None
    if total.amin() < SMALLEST_TOTAL:  # between two pixels that are sure of different classes, every class can be far below 0
        largest = logits.amax(1, keepdim=True)
        total = torch.sub(logits, largest, out=out).exp2_().sum(1, keepdim=True)
    out.mul_(total.reciprocal() if valid is None else valid.unsqueeze(1) / total)
    if not with_log:
        return None
    return total.log2_() if largest is None else total.log2_().add_(largest)


@dataclass(frozen=True)
class StrideReading:
    """The arguments of a batch: maps of the logits; the label, hard (B, H, W), soft (B, C, H, W) or a teacher's maps; valid."""

    maps: UpsampledMaps
    label: Tensor | UpsampledMaps
    valid: Tensor | None
    norm: int
    with_log: bool

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(B, C, H, W)"""
        images, _, classes, _ = self.maps.wide.shape
        return images, classes, *self.maps.grid.size

    def places(self) -> list[tuple[int, UpsampledRows]]:
        images, classes, height, width = self.shape
        elements = min(
            STRIDE_BLOCK_ELEMENTS, max(STRIDE_BLOCK_ELEMENTS >> 3, images * classes * height * width // LEAST_STRIDE_BLOCKS)
        )
        rows = -(-height // min(height, -(-classes * height * width // elements)))
        corners = [(image, start) for image in range(images) for start in range(0, height, rows)]
        return list(enumerate(self.maps.rows(image, slice(start, min(start + rows, height))) for image, start in corners))

    def block(self, place: UpsampledRows, scratch: "_Scratch") -> Block:
        """The place's rows, upsampled into scratch "logits" and, for a teacher, "label"; logits as in `UpsampledMaps`."""
        image, rows = place.image, place.rows
        logits = scratch.buffer("logits", rows)
        self.maps.upsample_into(logits, place)
        valid = None if self.valid is None else self.valid[image, rows]
        if isinstance(self.label, Tensor):
            label = self.label[image, rows] if is_hard(self.label) else self.label[image, :, rows].transpose(0, 1)
            return Block.of(logits, label, valid, self.norm, self.with_log)
        theirs, q = scratch.buffer("room", rows), scratch.buffer("label", rows)
        self.label.upsample_into(theirs, self.label.rows(image, rows))
        log_total = _softmax(q, theirs, valid, self.with_log)
        label_log = None if log_total is None else theirs.sub_(log_total).mul_(q).sum(2).mul_(1 / LOG2_E)
        return Block(logits, q, valid, self.norm, self.with_log, label_log)


class _Scratch:
    """A thread's own memory for blocks, made at first use."""

    def __init__(self, reading: StrideReading) -> None:
        _, self._classes, _, self._width = reading.shape
        self._dtype = reading.maps.wide.dtype
        self._buffers: dict[str, Tensor] = {}
        self.slots = first_slots(self._width, self._classes, torch.device("cpu"))

    def buffer(self, name: str, rows: slice) -> Tensor:
        """(rows, C, W), to write to. Only the last block of an image is smaller than the others."""
        height = rows.stop - rows.start
        if name not in self._buffers or len(self._buffers[name]) < height:
            self._buffers[name] = torch.empty(height, self._classes, self._width, dtype=self._dtype)
        return self._buffers[name][:height]


def stride_sums(
    logits: Tensor,
    label: Tensor | SoftAtStride,
    size: tuple[int, int],
    valid: Tensor | None,
    norm: int,
    with_log: bool,
    align_corners: bool = False,
) -> Sums:
    """The sums (B, C) of `plain_sums` of upsampled logits, without a gradient of the label; on the CPU.

    logits (B, C, h, w) at head stride, upsampled to size (H, W) bilinearly; label integer (B, H, W), probabilities (B, C, H, W)
    or `SoftAtStride`; valid bool (B, H, W) or None for all. norm, with_log: see `plain_sums`.
    """
    soft = isinstance(label, SoftAtStride)
    tensor = saveable(label.logits) if isinstance(label, SoftAtStride) else label
    return Sums(*_StrideSums.apply(logits, tensor, soft, size, valid, norm, with_log, align_corners))


def saveable(maps: Tensor) -> Tensor:
    """Maps of any shape, detached, and copied if they were made in inference mode: autograd cannot save those."""
    return maps.detach().clone() if maps.is_inference() else maps.detach()


def upsample_bilinear(maps: Tensor, size: tuple[int, int], align_corners: bool) -> Tensor:
    """(B, C, h, w) -> (B, C, *size), bilinear, in at least float32."""
    return F.interpolate(maps.to(sum_dtype(maps)), size, mode="bilinear", align_corners=align_corners)


@dataclass(frozen=True)
class _Options:
    at_stride: bool
    """Whether the label is a teacher's logits at its head stride."""
    size: tuple[int, int]
    norm: int
    with_log: bool
    align_corners: bool

    def reading(self, logits: Tensor, label: Tensor, valid: Tensor | None) -> StrideReading:
        """logits (B, C, h, w); label and valid as `stride_sums` takes them, or a teacher's logits (B, C, h', w')."""
        maps = UpsampledMaps(logits, self.size, self.align_corners)
        teacher = UpsampledMaps(label.to(maps.wide.dtype), self.size, self.align_corners) if self.at_stride else label
        return StrideReading(maps, teacher, valid, self.norm, self.with_log)


class _StrideSums(torch.autograd.Function):
    """Logits (B, C, h, w) -> the six sums, each (B, C). A second derivative goes through `plain_sums`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, soft: bool, size: tuple[int, int], *rest: Any) -> tuple[Tensor, ...]:
        valid, norm, with_log, align_corners = rest
        ctx.options = _Options(soft, size, norm, with_log, align_corners)
        parts = tuple(part.to(sum_dtype(logits)) for part in _sum_blocks(ctx.options.reading(logits, label, valid)))
        ctx.save_for_backward(logits, label, valid)
        ctx.mark_non_differentiable(parts[2], parts[3], parts[5])
        return parts

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        logits, label, valid = ctx.saved_tensors
        options: _Options = ctx.options
        none = (None,) * 7
        if torch.is_grad_enabled():
            q = upsample_bilinear(label, options.size, options.align_corners).softmax(1) if options.at_stride else label
            large = upsample_bilinear(logits, options.size, options.align_corners)
            sums = plain_sums(large, q, valid, options.norm, options.with_log)
            return differentiable_gradient(sums, logits, grads), *none
        gradient = _gradient(options.reading(logits, label, valid), grads[0], grads[1], grads[4])
        return gradient.to(logits.dtype), *none


def _sum_blocks(reading: StrideReading) -> Iterator[Tensor]:
    """The six sums (B, C) in the order of `Sums`, added in float64 in the order of the blocks, whichever thread took which."""
    images, classes, _, _ = reading.shape
    places = reading.places()
    table = torch.zeros(len(places), len(Sums._fields), classes, dtype=torch.float64)
    largest, log_likelihood = Sums._fields.index("largest_label"), Sums._fields.index("log_likelihood")

    def work(queue: Iterator[tuple[int, UpsampledRows]]) -> None:
        scratch = _Scratch(reading)
        for number, place in queue:
            block = reading.block(place, scratch)
            p, room = scratch.buffer("p", place.rows), scratch.buffer("room", place.rows)
            log_total = _softmax(p, block.logits, block.valid, block.with_log)
            sums = sums_of_block(block, p, log_total, room, scratch.slots)
            table[number] = sums.sum(1, dtype=torch.float64)
            table[number, largest] = sums[largest].amax(0)

    share_out(work, places, torch.device("cpu"))
    table[:, log_likelihood] /= LOG2_E
    of_images = table.view(images, -1, *table.shape[1:])
    for index in range(len(Sums._fields)):
        rows = of_images[:, :, index]
        yield rows.amax(1) if index == largest else rows.sum(1)


def _gradient(reading: StrideReading, *grads: Tensor) -> Tensor:
    """(B, C, h, w) from the gradients (B, C) of intersection, predicted and log_likelihood.

    Neighbouring blocks share rows of the small maps, so each block's part is kept and they are added in their order.
    """
    places = reading.places()
    parts: list[Tensor | None] = [None] * len(places)

    def work(queue: Iterator[tuple[int, UpsampledRows]]) -> None:
        scratch = _Scratch(reading)
        for number, place in queue:
            block = reading.block(place, scratch)
            p = scratch.buffer("p", place.rows)
            _softmax(p, block.logits, block.valid, with_log=False)
            columns = tuple(grad[place.image].view(1, -1, 1).expand(len(p), -1, -1) for grad in grads)
            gradient_of_block(block, p, columns, scratch.buffer("room", place.rows))
            parts[number] = place.weights.T @ p.view(len(p), -1)

    share_out(work, places, torch.device("cpu"))
    with single_threaded():
        wide = torch.zeros_like(reading.maps.wide)
        for (_, place), part in zip(places, parts, strict=True):
            assert part is not None  # mypy cannot know that every place was worked on
            few = wide[place.image, place.low : place.high]
            few += part.view_as(few)
    return reading.maps.gradient_of(wide)
