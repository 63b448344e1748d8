"""The sums of `segctl.losses.sums.plain`, fast: one pass over the logits, with the gradient written out.

Chosen: blocks of pixels that fit into the cache; the softmax in one buffer, which the backward pass turns into the gradient in
place; one Python thread per core, each with single-threaded operations. Not chosen: operations over whole tensors, because memory
bounds them and they hold four copies of the logits; torch's own parallel operations on blocks, because their hundreds of small
parallel regions wait for one another whenever other processes use the cores. On a GPU, where each operation costs a launch, the
whole batch is one block.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segctl.losses.pixels import is_hard, sum_dtype, wide_dtype
from segctl.losses.sums.block import Block, gradient_of_block, softmax_into, sums_of_block
from segctl.losses.sums.plain import Sums, first_slots, plain_sums
from segctl.losses.sums.threads import share_out

BLOCK_ELEMENTS = 1 << 20
"""Probabilities in a block, 4 MiB of float32. A sixteenth of it took twice as long; twice as many saved nothing."""
LEAST_BLOCKS = 32
"""Smallest number of blocks in a batch, so that each thread's two blocks of scratch memory stay small beside the logits."""


class PixelRange(NamedTuple):
    """Some neighbouring pixels of one image, or all pixels of the batch."""

    number: int
    images: slice
    pixels: slice


@dataclass(frozen=True)
class Reading:
    """The arguments of a batch: logits (B, C, N), label (B, N) or (B, C, N), valid (B, N) or None."""

    logits: Tensor
    label: Tensor
    valid: Tensor | None
    norm: int
    with_log: bool

    def at(self, place: PixelRange) -> Block:
        logits = self.logits[place.images, :, place.pixels].to(sum_dtype(self.logits))
        label = self.label[place.images, ..., place.pixels]
        valid = None if self.valid is None else self.valid[place.images, place.pixels]
        return Block.of(logits, label, valid, self.norm, self.with_log)

    @property
    def block_shape(self) -> tuple[int, int]:
        """Images and pixels in a block; every image has equal blocks."""
        images, classes, pixels = self.logits.shape
        if self.logits.is_cuda:
            return images, pixels
        elements = min(BLOCK_ELEMENTS, max(BLOCK_ELEMENTS >> 1, self.logits.numel() // LEAST_BLOCKS))
        return 1, -(-pixels // -(-classes * pixels // elements))

    def places(self) -> list[PixelRange]:
        images, _, pixels = self.logits.shape
        rows, length = self.block_shape
        corners = [(image, start) for image in range(0, images, rows) for start in range(0, pixels, length)]
        return [
            PixelRange(number, slice(image, image + rows), slice(start, min(start + length, pixels)))
            for number, (image, start) in enumerate(corners)
        ]


def block_sums(logits: Tensor, label: Tensor, valid: Tensor | None, norm: int, with_log: bool) -> Sums:
    """As `segctl.losses.sums.plain.plain_sums`, each (B, C), but without a gradient of the label."""
    return Sums(*_BlockSums.apply(logits, label, valid, norm, with_log))


class _BlockSums(torch.autograd.Function):
    """Logits (B, C, *D) -> the six sums, each (B, C). A second derivative goes through `plain_sums`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, valid: Tensor | None, norm: int, with_log: bool) -> tuple[Tensor, ...]:
        reading = _flat(logits, label, valid, norm, with_log)
        dtype = sum_dtype(logits)
        keep = ctx.needs_input_grad[0] and logits.dtype == dtype  # a half-precision softmax is too coarse to reuse
        p = torch.empty_like(reading.logits) if keep else None
        parts = tuple(part.to(dtype) for part in _sum_blocks(reading, p))
        ctx.save_for_backward(logits, label, valid)
        ctx.norm, ctx.with_log, ctx.p = norm, with_log, p
        ctx.mark_non_differentiable(parts[2], parts[3], parts[5])
        return parts

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        logits, label, valid = ctx.saved_tensors
        if torch.is_grad_enabled():
            sums = plain_sums(logits, label, valid, ctx.norm, ctx.with_log)
            return differentiable_gradient(sums, logits, grads), None, None, None, None
        p, ctx.p = ctx.p, None  # the first backward pass overwrites the buffer; another one computes the softmax again
        reading = _flat(logits, label, valid, ctx.norm, ctx.with_log)
        gradient = _gradient(reading, p, grads[0], grads[1], grads[4])
        return gradient.reshape(logits.shape), None, None, None, None


def _flat(logits: Tensor, label: Tensor, valid: Tensor | None, norm: int, with_log: bool) -> Reading:
    """(B, C, *D), (B, *D) or (B, C, *D), and (B, *D) -> the same with one pixel axis N."""
    images, classes = logits.shape[:2]
    return Reading(
        logits.detach().reshape(images, classes, -1),
        label.reshape(images, -1) if is_hard(label) else label.reshape(images, classes, -1),
        None if valid is None else valid.reshape(images, -1),
        norm,
        with_log,
    )


def differentiable_gradient(sums: Sums, logits: Tensor, grads: tuple[Tensor, ...]) -> Tensor:
    """The gradient of the logits, as a function that autograd can differentiate again.

    sums: those of the logits by `plain_sums`; grads of the six sums (B, C).
    """
    wanted = [index for index in (0, 1, 4) if sums[index].requires_grad]
    (gradient,) = torch.autograd.grad([sums[i] for i in wanted], logits, [grads[i] for i in wanted], create_graph=True)
    return gradient


def _sum_blocks(reading: Reading, p: Tensor | None) -> Iterator[Tensor]:
    """The six sums (B, C) in the order of `Sums`; the softmax goes into p (B, C, N), 0 at ignored pixels.

    Blocks are added in float64 (`wide_dtype`) and in their order, so the result does not depend on which thread took which block.
    """
    images, classes, _ = reading.logits.shape
    places, device = reading.places(), reading.logits.device
    rows = reading.block_shape[0]
    table = torch.zeros(len(places), len(Sums._fields), rows, classes, dtype=wide_dtype(device), device=device)

    def work(queue: Iterator[PixelRange]) -> None:
        scratch = _Scratch(reading)
        for place in queue:
            block = reading.at(place)
            out = scratch.first(block) if p is None else p[place.images, :, place.pixels]
            log_total = softmax_into(out, block.logits, block.valid, block.with_log)
            table[place.number].copy_(sums_of_block(block, out, log_total, scratch.second(block), scratch.slots(block)))

    share_out(work, places, device)
    # (blocks, 6, rows, C) -> (blocks of an image, 6, B, C): a block holds one image, or the only block holds all.
    of_images = table if rows == images else table.view(images, -1, *table.shape[1:]).squeeze(3).permute(1, 2, 0, 3)
    for index, name in enumerate(Sums._fields):
        by_block = of_images[:, index]
        yield by_block.amax(0) if name == "largest_label" else by_block.sum(0)


def _gradient(reading: Reading, p: Tensor | None, *grads: Tensor) -> Tensor:
    """(B, C, N) from the gradients (B, C) of intersection, predicted and log_likelihood; overwrites p (B, C, N), if given."""
    gradient = torch.empty_like(reading.logits) if p is None else p
    # Half-precision logits get a gradient of their own type, but it is computed in float32 and then copied.
    in_place = gradient.dtype == sum_dtype(gradient)

    def work(queue: Iterator[PixelRange]) -> None:
        scratch = _Scratch(reading)
        for place in queue:
            block = reading.at(place)
            target = gradient[place.images, :, place.pixels]
            probabilities = target if in_place else scratch.first(block)
            if p is None:
                softmax_into(probabilities, block.logits, block.valid, with_log=False)
            columns = tuple(grad[place.images].unsqueeze(2) for grad in grads)
            gradient_of_block(block, probabilities, columns, scratch.second(block))
            if not in_place:
                target.copy_(probabilities)

    share_out(work, reading.places(), reading.logits.device)
    return gradient


class _Scratch:
    """A thread's own two blocks of memory, made at first use, and the slots into which `sum_by_slot` adds each pixel."""

    def __init__(self, reading: Reading) -> None:
        rows, length = reading.block_shape
        self._like = reading.logits[:rows, :, :length]
        self._buffers: dict[int, Tensor] = {}
        self._slots = first_slots(length, self._like.shape[1], self._like.device)

    def first(self, block: Block) -> Tensor:
        return self._buffer(0)[:, :, : block.logits.shape[2]]

    def second(self, block: Block) -> Tensor:
        return self._buffer(1)[:, :, : block.logits.shape[2]]

    def _buffer(self, number: int) -> Tensor:
        if number not in self._buffers:
            self._buffers[number] = torch.empty_like(self._like, dtype=sum_dtype(self._like))
        return self._buffers[number]

    def slots(self, block: Block) -> Tensor:
        return self._slots[: block.logits.shape[2]]
