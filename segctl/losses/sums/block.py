"""The arithmetic of one block of pixels: softmax, the six sums, and the gradient, in memory that the caller gives.

A block holds R rows of n pixels: rows of one image, one image's pixels as one row, or each image of a batch as a row. With
p = softmax(z), a loss L of the sums, and `pull` = p ⊙ dL/dp (for y·log p that is y), the gradient is
dL/dz = pull - p·(sum of pull over the classes), for each pixel by itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from segctl.losses.pixels import is_hard
from segctl.losses.sums.plain import sum_by_slot


@dataclass(frozen=True)
class Block:
    """Pixels in the precision of sums: logits (R, C, n), label int64 (R, n) or probabilities (R, C, n), valid (R, n) or None.

    Ignored pixels have class 0 or all-zero probabilities; their logits are finite. norm, with_log: see `plain_sums`.
    label_log: sum y·log y of each row (R, C), if it is known; else it is computed from soft labels.
    """

    logits: Tensor
    label: Tensor
    valid: Tensor | None
    norm: int
    with_log: bool
    label_log: Tensor | None = None

    @staticmethod
    def of(logits: Tensor, label: Tensor, valid: Tensor | None, norm: int, with_log: bool) -> "Block":
        """The block of logits (R, C, n), and a label of any type with its ignored pixels blanked."""
        label = label.to(torch.int64 if is_hard(label) else logits.dtype)
        if valid is not None:
            label = label.masked_fill(~(valid if is_hard(label) else valid.unsqueeze(1)), 0)
        return Block(logits, label, valid, norm, with_log)


def softmax_into(out: Tensor, logits: Tensor, valid: Tensor | None, with_log: bool) -> Tensor | None:
    """softmax of the logits (R, C, n) into out (R, C, n), which may be their own memory; 0 where valid (R, n) is False.

    Returns the logarithm of the sum over classes of exp(logits), (R, 1, n), if with_log, else None.
    """
    largest = logits.amax(1, keepdim=True)  # subtracted first, because exp of a large logit is infinite
    torch.sub(logits, largest, out=out).exp_()
    total = out.sum(1, keepdim=True)
    out.mul_(total.reciprocal() if valid is None else valid.unsqueeze(1) / total)
    return largest.add_(total.log_()) if with_log else None


def sums_of_block(block: Block, p: Tensor, log_total: Tensor | None, room: Tensor, first: Tensor) -> Tensor:
    """The six sums of each row, (6, R, C) in the order of `Sums`.

    p (R, C, n) and log_total (R, 1, n) or None as `softmax_into` gives them, room (R, C, n) to write to, and first (n,): see
    `first_slots`.
    """
    return torch.stack((_hard if is_hard(block.label) else _soft)(block, p, log_total, room, first))


def _hard(block: Block, p: Tensor, log_total: Tensor | None, room: Tensor, first: Tensor) -> list[Tensor]:
    label = block.label.unsqueeze(1)
    counted = p.new_ones(p.shape[0], p.shape[2]) if block.valid is None else block.valid.to(p.dtype)
    values = [p.gather(1, label)[:, 0], counted]
    if log_total is not None:
        log_p = (block.logits.gather(1, label) - log_total)[:, 0]
        values.append(log_p if block.valid is None else log_p.masked_fill_(~block.valid, 0.0))
    by_class = sum_by_slot(torch.stack(values), (block.label + first).expand(len(values), -1, -1), p.shape[1])
    size = p.sum(2) if block.norm == 1 else torch.mul(p, p, out=room).sum(2)
    nothing = torch.zeros_like(size)
    return [by_class[0], size, by_class[1], (by_class[1] > 0).to(p.dtype), nothing if log_total is None else by_class[2], nothing]


def _soft(block: Block, p: Tensor, log_total: Tensor | None, room: Tensor, first: Tensor) -> list[Tensor]:
    q = block.label
    if block.norm == 1:
        size, labelled = p.sum(2), q.sum(2)
        common = torch.minimum(p, q, out=room).sum(2)
    else:
        size = torch.mul(p, p, out=room).sum(2)
        labelled = torch.mul(q, q, out=room).sum(2)
        common = torch.mul(p, q, out=room).sum(2)
    log_likelihood = label_log = torch.zeros_like(size)
    if log_total is not None:
        log_likelihood = torch.sub(block.logits, log_total, out=room).mul_(q).sum(2)
        if block.label_log is not None:
            label_log = block.label_log
        else:
            label_log = torch.clamp(q, min=torch.finfo(q.dtype).tiny, out=room).log_().mul_(q).sum(2)
    return [common, size, labelled, q.amax(2), log_likelihood, label_log]


def gradient_of_block(block: Block, p: Tensor, grads: tuple[Tensor, ...], room: Tensor) -> None:
    """Turn p (R, C, n) into the gradient of the logits, in place; room (R, C, n) to write to.

    grads: those of the rows' intersection, predicted and log_likelihood, each (R, C, 1).
    """
    pull = (_hard_pull if is_hard(block.label) else _soft_pull)(block, p, grads, room)
    torch.addcmul(pull, p, pull.sum(1, keepdim=True), value=-1, out=p)


def _hard_pull(block: Block, p: Tensor, grads: tuple[Tensor, ...], out: Tensor) -> Tensor:
    """p ⊙ dL/dp (R, C, n) for hard labels, into out."""
    of_common, of_size, of_log = grads
    label = block.label.unsqueeze(1)
    at_label = p.gather(1, label).mul_(of_common.gather(1, label.transpose(1, 2)).transpose(1, 2))
    if block.with_log:
        log_share = of_log.gather(1, label.transpose(1, 2)).transpose(1, 2)
        # p, and all that is multiplied by it, is 0 at ignored pixels; this is not
        at_label.add_(log_share if block.valid is None else log_share.mul_(block.valid.unsqueeze(1)))
    if block.norm == 1:
        torch.mul(p, of_size, out=out)
    else:
        torch.mul(p, p, out=out).mul_(2 * of_size)
    return out.scatter_add_(1, label, at_label)


def _soft_pull(block: Block, p: Tensor, grads: tuple[Tensor, ...], out: Tensor) -> Tensor:
    """p ⊙ dL/dp (R, C, n) for soft labels, into out."""
    of_common, of_size, of_log = grads
    q = block.label
    if block.norm == 1:
        # d min(p, q) / dp is (sign(q - p) + 1) / 2. At p = q that is ½, the mean of its two slopes, as in torch.
        torch.sub(q, p, out=out).sign_().mul_(of_common / 2).add_(of_size + of_common / 2)
    else:
        torch.mul(p, 2 * of_size, out=out).addcmul_(q, of_common)
    out.mul_(p)
    return out.addcmul_(q, of_log) if block.with_log else out
