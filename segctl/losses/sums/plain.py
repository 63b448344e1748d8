"""Sums of a batch per image and class, from which the ratio losses, cross-entropy and KL can be computed.

This is the readable form, by torch's own operations. `segctl.losses.sums.fast` gives the same numbers faster, and
`segctl.losses.sums.choose` chooses between the two.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from segctl.losses.pixels import finite_where_ignored, is_hard, log_or_lowest, sum_dtype

BLOCK = 64
"""Pixels that are added one after another; then the sums of the blocks are added. See `first_slots`."""


class Sums(NamedTuple):
    """Sums over the valid pixels of probabilities p and labels y (one-hot where hard), each (B, C), in at least float32."""

    intersection: Tensor
    """sum min(p, y); with norm 2, sum p·y."""
    predicted: Tensor
    """sum p; with norm 2, sum p²."""
    labelled: Tensor
    """sum y; with norm 2, sum y²."""
    largest_label: Tensor
    """max y, 0 without valid pixels. It has no gradient."""
    log_likelihood: Tensor
    """sum y·log p if it was asked for (with_log), else 0."""
    label_log: Tensor
    """sum y·log y if it was asked for (with_log), else 0. It has no gradient."""

    def over_batch(self) -> "Sums":
        """The sums over all images at once, each (1, C)."""
        return Sums(
            self.intersection.sum(0, keepdim=True),
            self.predicted.sum(0, keepdim=True),
            self.labelled.sum(0, keepdim=True),
            self.largest_label.amax(0, keepdim=True),
            self.log_likelihood.sum(0, keepdim=True),
            self.label_log.sum(0, keepdim=True),
        )


def plain_sums(logits: Tensor, label: Tensor, valid: Tensor | None, norm: int, with_log: bool = False) -> Sums:
    """The sums of logits (B, C, *D) and label integer (B, *D) or probabilities (B, C, *D), valid bool (B, *D) or None for all.

    norm: 1 or 2, see `Sums`. Gradients are autograd's own, so every device and every derivative works.
    """
    flat = finite_where_ignored(logits, valid).reshape(*logits.shape[:2], -1)
    p = flat.softmax(1, dtype=sum_dtype(logits))
    valid = None if valid is None else valid.reshape(p.shape[0], -1)
    log_p = flat.log_softmax(1, dtype=sum_dtype(logits)) if with_log else None
    if is_hard(label):
        return _hard_sums(p, log_p, label.long().reshape(p.shape[0], -1), valid, norm)
    return _soft_sums(p, log_p, label.to(p.dtype).reshape(p.shape), valid, norm)


def _hard_sums(p: Tensor, log_p: Tensor | None, label: Tensor, valid: Tensor | None, norm: int) -> Sums:
    """p, log_p (B, C, N), label int64 (B, N), valid bool (B, N) or None."""
    counted = torch.ones_like(label, dtype=p.dtype) if valid is None else valid.to(p.dtype)
    label = label if valid is None else label.masked_fill(~valid, 0)

    def of_label(values: Tensor) -> Tensor:
        """Sum of each pixel's value at its label: (B, C, N) -> (B, C)."""
        if torch.compiler.is_compiling():
            # The compiler makes one kernel of a comparison with every class and its sum; of gather and scatter, several.
            hit = label.unsqueeze(1) == torch.arange(p.shape[1], device=label.device).view(-1, 1)
            hit = hit if valid is None else hit & valid.unsqueeze(1)
            return values.masked_fill(~hit, 0.0).sum(2)
        chosen = values.gather(1, label.unsqueeze(1)).squeeze(1)
        return sum_by_class(chosen if valid is None else chosen.masked_fill(~valid, 0.0), label, p.shape[1])

    compiling = torch.compiler.is_compiling()
    pixels = of_label(torch.ones_like(p)) if compiling else sum_by_class(counted, label, p.shape[1])
    log_likelihood = torch.zeros_like(pixels) if log_p is None else of_label(log_p)
    return Sums(of_label(p), _size(p, valid, norm), pixels, (pixels > 0).to(p.dtype), log_likelihood, torch.zeros_like(pixels))


def _soft_sums(p: Tensor, log_p: Tensor | None, label: Tensor, valid: Tensor | None, norm: int) -> Sums:
    """p, log_p and label (B, C, N), valid bool (B, N) or None."""
    if valid is not None:
        label = label.masked_fill(~valid.unsqueeze(1), 0.0)
    common = torch.minimum(p, label) if norm == 1 else p * label
    size = _size(label, None, norm)
    log_likelihood = label_log = torch.zeros_like(size)
    if log_p is not None:
        log_likelihood, label_log = (label * log_p).sum(2), (label * log_or_lowest(label)).sum(2).detach()
    return Sums(common.sum(2), _size(p, valid, norm), size, label.amax(2), log_likelihood, label_log)


def _size(values: Tensor, valid: Tensor | None, norm: int) -> Tensor:
    """Sum of the values, or of their squares, over the valid pixels: (B, C, N) -> (B, C)."""
    if valid is not None:
        values = values.masked_fill(~valid.unsqueeze(1), 0.0)
    return (values if norm == 1 else values * values).sum(2)


def sum_by_class(values: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Sum the values (B, N) of each class id in label (B, N) -> (B, C)."""
    return sum_by_slot(values, label + first_slots(label.shape[1], num_classes, label.device), num_classes)


def first_slots(pixels: int, num_classes: int, device: torch.device) -> Tensor:
    """The first of the num_classes slots of each pixel's block, int64 (N,); the pixel's own slot is that plus its class.

    Each block of pixels has slots of its own, because scatter_add adds one by one: a single float32 sum over half a million
    pixels was wrong by 0.5 per cent.
    """
    return num_classes * (torch.arange(pixels, device=device) // BLOCK)


def sum_by_slot(values: Tensor, slots: Tensor, num_classes: int) -> Tensor:
    """Sum the values (*L, N) of each class over its slots, int64 (*L, N) -> (*L, C); *L any leading dimensions."""
    blocks = -(-values.shape[-1] // BLOCK)
    sums = values.new_zeros(*values.shape[:-1], blocks * num_classes).scatter_add(-1, slots, values)
    return sums.view(*values.shape[:-1], blocks, num_classes).sum(-2)
