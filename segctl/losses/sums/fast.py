"""The sums of `segctl.losses.sums.plain`, fast: one pass over the logits, with the gradient written out.

Chosen: blocks of pixels that fit into the cache; the softmax in one buffer, which the backward pass turns into the gradient in
place; one Python thread per core, each with single-threaded operations. Not chosen: operations over whole tensors, because memory
bounds them and they hold four copies of the logits; torch's own parallel operations on blocks, because their hundreds of small
parallel regions wait for one another whenever other processes use the cores.

With p = softmax(z), a loss L of the sums, and `pull` = p ⊙ dL/dp (for y·log p that is y), the gradient is
dL/dz = pull - p·(sum of pull over the classes), for each pixel by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segctl.losses.pixels import is_hard, sum_dtype, wide_dtype
from segctl.losses.sums.plain import Sums, first_slots, plain_sums, sum_by_slot
from segctl.losses.sums.threads import share_out

BLOCK_ELEMENTS = 1 << 20
"""Probabilities in a block, 4 MiB of float32. A sixteenth of it took twice as long; twice as many saved nothing."""
LEAST_BLOCKS = 32
"""Smallest number of blocks in a batch, so that each thread's two blocks of scratch memory stay small beside the logits."""


class Block(NamedTuple):
    """Some neighbouring pixels of one image."""

    number: int
    image: int
    pixels: slice


@dataclass(frozen=True)
class Reading:
    """The arguments of a batch or of one block: logits (…, C, N), label (…, N) or (…, C, N), valid (…, N) or None."""

    logits: Tensor
    label: Tensor
    valid: Tensor | None
    norm: int
    with_log: bool

    def at(self, block: Block) -> "Reading":
        """The part in a block, in the precision of sums: ids as int64; ignored pixels have class 0 or all-zero probabilities."""
        logits = self.logits[block.image, :, block.pixels].to(sum_dtype(self.logits))
        label = self.label[block.image, ..., block.pixels].to(torch.int64 if is_hard(self.label) else logits.dtype)
        valid = None if self.valid is None else self.valid[block.image, block.pixels]
        if valid is not None:
            label = label.masked_fill(~valid, 0)
        return replace(self, logits=logits, label=label, valid=valid)

    @property
    def block_length(self) -> int:
        """Pixels in a block; every image has equal blocks, and on a GPU an image is one block."""
        _, classes, pixels = self.logits.shape
        if self.logits.is_cuda:
            return pixels
        elements = min(BLOCK_ELEMENTS, max(BLOCK_ELEMENTS >> 1, self.logits.numel() // LEAST_BLOCKS))
        return -(-pixels // -(-classes * pixels // elements))

    def blocks(self) -> list[Block]:
        images, _, pixels = self.logits.shape
        length = self.block_length
        starts = range(0, pixels, length)
        places = [(image, slice(start, min(start + length, pixels))) for image in range(images) for start in starts]
        return [Block(number, image, part) for number, (image, part) in enumerate(places)]


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
        sums = _sum_blocks(reading, p)
        ctx.save_for_backward(logits, label, valid)
        ctx.norm, ctx.with_log, ctx.p = norm, with_log, p
        parts = tuple(part.to(dtype) for part in sums)
        ctx.mark_non_differentiable(parts[2], parts[3], parts[5])
        return parts

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        logits, label, valid = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _differentiable_gradient(logits, label, valid, ctx, grads), None, None, None, None
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


def _differentiable_gradient(logits: Tensor, label: Tensor, valid: Tensor | None, ctx: Any, grads: tuple[Tensor, ...]) -> Tensor:
    """The gradient (B, C, *D) of the logits as a function that autograd can differentiate again; grads of the six sums (B, C)."""
    sums = plain_sums(logits, label, valid, ctx.norm, ctx.with_log)
    wanted = [index for index in (0, 1, 4) if sums[index].requires_grad]
    (gradient,) = torch.autograd.grad([sums[i] for i in wanted], logits, [grads[i] for i in wanted], create_graph=True)
    return gradient


def _sum_blocks(reading: Reading, p: Tensor | None) -> Iterator[Tensor]:
    """The six sums (B, C) in the order of `Sums`; the softmax goes into p (B, C, N), 0 at ignored pixels.

    Blocks are added in float64 (`wide_dtype`) and in their order, so the result does not depend on which thread took which block.
    """
    images, classes, _ = reading.logits.shape
    blocks, length = reading.blocks(), reading.block_length
    table = torch.zeros(
        len(blocks), len(Sums._fields), classes, dtype=wide_dtype(reading.logits.device), device=reading.logits.device
    )

    def work(queue: Iterator[Block]) -> None:
        scratch = _Scratch(reading, length)
        for block in queue:
            part = reading.at(block)
            out = scratch.first(part) if p is None else p[block.image, :, block.pixels]
            log_total = _softmax(part, out)
            sums = (_hard if is_hard(part.label) else _soft)(part, out, log_total, scratch)
            table[block.number].copy_(torch.stack(sums))

    share_out(work, blocks, reading.logits.device)
    of_images = table.view(images, -1, *table.shape[1:])
    for index, name in enumerate(Sums._fields):
        rows = of_images[:, :, index]
        yield rows.amax(1) if name == "largest_label" else rows.sum(1)


def _gradient(reading: Reading, p: Tensor | None, *grads: Tensor) -> Tensor:
    """(B, C, N) from the gradients (B, C) of intersection, predicted and log_likelihood; overwrites p (B, C, N), if given."""
    gradient = torch.empty_like(reading.logits) if p is None else p
    # Half-precision logits get a gradient of their own type, but it is computed in float32 and then copied.
    in_place, length = gradient.dtype == sum_dtype(gradient), reading.block_length

    def work(queue: Iterator[Block]) -> None:
        scratch = _Scratch(reading, length)
        for block in queue:
            part = reading.at(block)
            target = gradient[block.image, :, block.pixels]
            probabilities = target if in_place else scratch.first(part)
            if p is None:
                _softmax(part, probabilities)
            columns = [grad[block.image].unsqueeze(1) for grad in grads]
            pull = (_hard_pull if is_hard(part.label) else _soft_pull)(part, probabilities, columns, scratch.second(part))
            torch.addcmul(pull, probabilities, pull.sum(0), value=-1, out=probabilities)
            if not in_place:
                target.copy_(probabilities)

    share_out(work, reading.blocks(), reading.logits.device)
    return gradient


class _Scratch:
    """A thread's own two blocks of memory (C, n), made at first use, and the slots into which `sum_by_slot` adds each pixel."""

    def __init__(self, reading: Reading, length: int) -> None:
        self._like = reading.logits[:1, :, :length]
        self._buffers: dict[int, Tensor] = {}
        self._slots = first_slots(length, self._like.shape[1], self._like.device)

    def first(self, part: Reading) -> Tensor:
        return self._buffer(0)[:, : part.logits.shape[1]]

    def second(self, part: Reading) -> Tensor:
        return self._buffer(1)[:, : part.logits.shape[1]]

    def _buffer(self, number: int) -> Tensor:
        if number not in self._buffers:
            self._buffers[number] = torch.empty_like(self._like, dtype=sum_dtype(self._like))[0]
        return self._buffers[number]

    def slots(self, part: Reading) -> Tensor:
        return part.label + self._slots[: part.label.shape[0]]


def _softmax(part: Reading, out: Tensor) -> Tensor | None:
    """softmax(logits) into out (C, n), 0 at ignored pixels. Returns log sum exp of the logits (n,) if with_log, else None."""
    largest = part.logits.amax(0)  # subtracted first, because exp of a large logit is infinite
    torch.sub(part.logits, largest, out=out).exp_()
    total = out.sum(0)
    out.mul_(total.reciprocal() if part.valid is None else part.valid / total)
    return largest.add_(total.log_()) if part.with_log else None


def _hard(part: Reading, p: Tensor, log_total: Tensor | None, scratch: _Scratch) -> list[Tensor]:
    """The six sums of one block with hard labels, each (C,); p (C, n), log_total (n,) or None."""
    label = part.label.unsqueeze(0)
    counted = p.new_ones(p.shape[1]) if part.valid is None else part.valid.to(p.dtype)
    rows = [p.gather(0, label)[0], counted]
    if log_total is not None:
        log_p = part.logits.gather(0, label)[0].sub_(log_total)
        rows.append(log_p if part.valid is None else log_p.masked_fill_(~part.valid, 0.0))
    by_class = sum_by_slot(torch.stack(rows), scratch.slots(part).expand(len(rows), -1), p.shape[0])
    size = p.sum(1) if part.norm == 1 else torch.mul(p, p, out=scratch.second(part)).sum(1)
    nothing = torch.zeros_like(size)
    return [by_class[0], size, by_class[1], (by_class[1] > 0).to(p.dtype), nothing if log_total is None else by_class[2], nothing]


def _soft(part: Reading, p: Tensor, log_total: Tensor | None, scratch: _Scratch) -> list[Tensor]:
    """The six sums of one block with soft labels, each (C,); p (C, n), log_total (n,) or None."""
    q, room = part.label, scratch.second(part)
    if part.norm == 1:
        size, labelled = p.sum(1), q.sum(1)
        common = torch.minimum(p, q, out=room).sum(1)
    else:
        size = torch.mul(p, p, out=room).sum(1)
        labelled = torch.mul(q, q, out=room).sum(1)
        common = torch.mul(p, q, out=room).sum(1)
    log_likelihood = label_log = torch.zeros_like(size)
    if log_total is not None:
        log_likelihood = torch.sub(part.logits, log_total, out=room).mul_(q).sum(1)
        label_log = torch.clamp(q, min=torch.finfo(q.dtype).tiny, out=room).log_().mul_(q).sum(1)
    return [common, size, labelled, q.amax(1), log_likelihood, label_log]


def _hard_pull(part: Reading, p: Tensor, grads: list[Tensor], out: Tensor) -> Tensor:
    """p ⊙ dL/dp (C, n) for hard labels, into out; p (C, n), grads of intersection, predicted and log_likelihood, each (C, 1)."""
    of_common, of_size, of_log = grads
    label = part.label.unsqueeze(0)
    at_label = p.gather(0, label).mul_(of_common.take(label))
    if part.with_log:
        log_share = of_log.take(label)  # p, and all that is multiplied by it, is 0 at ignored pixels; this is not
        at_label.add_(log_share if part.valid is None else log_share.mul_(part.valid))
    if part.norm == 1:
        torch.mul(p, of_size, out=out)
    else:
        torch.mul(p, p, out=out).mul_(2 * of_size)
    return out.scatter_add_(0, label, at_label)


def _soft_pull(part: Reading, p: Tensor, grads: list[Tensor], out: Tensor) -> Tensor:
    """p ⊙ dL/dp (C, n) for soft labels, into out; arguments as `_hard_pull`."""
    of_common, of_size, of_log = grads
    q = part.label
    if part.norm == 1:
        # d min(p, q) / dp is (sign(q - p) + 1) / 2. At p = q that is ½, the mean of its two slopes, as in torch.
        torch.sub(q, p, out=out).sign_().mul_(of_common / 2).add_(of_size + of_common / 2)
    else:
        torch.mul(p, 2 * of_size, out=out).addcmul_(q, of_common)
    out.mul_(p)
    return out.addcmul_(q, of_log) if part.with_log else out
