"""Run with TRITON_INTERPRET=1: the kernels against torch's own operations in float64. Called by `test_on_gpu`.

Triton decides at its import whether it interprets, so this is a process of its own.
"""

import itertools
import random
import sys

import torch
from torch import Tensor

from segctl.losses import CrossEntropyLoss, JDTLoss, KLLoss
from segctl.losses.sums.at_stride import SoftAtStride
from segctl.losses.sums.on_gpu import KernelCall, SumTables, checked_sums, kernel_sums, plain_at_size
from segctl.losses.sums.plain import Sums

CASES = [  # images, classes, grid, label size, the teacher's grid, type
    (2, 5, (2, 2), (6, 8), (2, 3), torch.float32),
    (1, 19, (2, 3), (9, 11), (3, 3), torch.float16),
    (3, 2, (1, 1), (5, 4), (1, 2), torch.bfloat16),
]
LONG = [
    (1, 256, (2, 2), (9, 8), (2, 2), torch.float32),
    (16, 3, (2, 1), (7, 5), (1, 1), torch.float32),
    (1, 150, (3, 3), (24, 24), (2, 2), torch.bfloat16),
]


def gradient(sums: Sums, logits: Tensor) -> Tensor:
    torch.manual_seed(1)
    parts = (sums.intersection, sums.predicted, sums.log_likelihood)
    total = torch.stack([(part.double() * torch.randn(part.shape, dtype=torch.float64)).sum() for part in parts]).sum()
    return torch.autograd.grad(total, logits)[0].double()


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).abs().max() / wanted.abs().max().clamp(min=1e-6))


def compare(case: tuple, kind: str, norm: int, masked: bool, corners: bool) -> None:
    images, classes, grid, size, their_grid, dtype = case
    torch.manual_seed(0)
    logits = (3 * torch.randn(images, classes, *grid)).to(dtype)
    if masked:
        logits = logits.contiguous(memory_format=torch.channels_last)
    valid = torch.rand(images, *size) < 0.8 if masked else None
    label: Tensor = 2 * torch.randn(images, classes, *their_grid)
    if kind == "hard":
        label = torch.randint(0, classes, (images, *size))
        label = label if valid is None else label.masked_fill(~valid, 255).to(torch.uint8)
    ours = logits.clone().requires_grad_()
    theirs = logits.double().requires_grad_()
    found = kernel_sums(ours, label if kind == "hard" else SoftAtStride(label), size, valid, norm, True, corners)
    exact = label if kind == "hard" else label.double()
    wanted = plain_at_size(theirs, exact, valid, KernelCall(size, norm, True, kind == "hard", corners))
    for name, one, other in zip(Sums._fields, found, wanted, strict=True):
        assert error(one, other) < 1e-5, (case, kind, norm, masked, corners, name, error(one, other))
    limit = 1e-4 if dtype == torch.float32 else 1e-2  # half-precision gradients are rounded to their own type
    off = error(gradient(found, ours), gradient(wanted, theirs))
    assert off < limit, (case, kind, norm, masked, corners, "gradient", off)


def compare_losses(number: int) -> None:
    """A JDT, a cross-entropy and a KL loss of some sums, in one kernel each, against torch's own operations in float64."""
    draw = random.Random(number)
    torch.manual_seed(number)
    images, classes = draw.choice([(1, 3), (4, 19), (3, 150)])
    predicted, labelled = 10 * torch.rand(2, images, classes)
    labelled[torch.rand(images, classes) < 0.3] = 0.0
    labelled[0, 0] = 3.0  # without any label there is no log-likelihood either, and `empty` below is that case
    learned = torch.stack([torch.minimum(predicted, labelled) * 0.7, predicted, -5 * torch.rand(images, classes)])
    counted = torch.stack([labelled, labelled / 10, -torch.rand(images, classes)])
    means = draw.choice([(1, 0, 0), (0, 1, 0), (0, 0, 1), (0.3, 0.2, 0.5)])
    weights = draw.choice([None, torch.rand(classes).tolist()])
    ratio = JDTLoss(
        *means, alpha=draw.choice([1, 0.3]), gamma=draw.choice([1, 1.5]), smooth=draw.choice([0.5, 1]), class_weights=weights,
        log_loss=draw.choice([True, False]), threshold=draw.choice([0.01, 0.6]),
    )  # fmt: skip
    hard = draw.choice([True, False])
    for loss, options in ((ratio, {"hard": hard}), (CrossEntropyLoss(class_weights=weights), {}), (KLLoss(2.0), {})):
        ours, theirs = learned.clone().requires_grad_(), learned.double().requires_grad_()
        found = loss.of_sums(SumTables.of(ours, counted), **options)
        assert type(found.grad_fn).__name__ == "_ValueBackward"
        wanted = loss.of_sums(Sums(*SumTables.of(theirs, counted.double())), **options)
        assert error(found, wanted) < 1e-5, (number, loss, vars(loss))
        slopes = [torch.autograd.grad(value, x)[0] for value, x in ((found, ours), (wanted, theirs))]
        assert error(slopes[0], slopes[1]) < 1e-5, (number, loss, vars(loss), "gradient")


def main() -> None:
    long = "long" in sys.argv
    for number in range(100 if long else 6):
        compare_losses(number)
    empty = SumTables.of(torch.zeros(3, 2, 4), torch.zeros(3, 2, 4))  # a batch without a valid pixel
    assert float(JDTLoss(1, 1, 1, smooth=0.0).of_sums(empty, hard=False)) == 0
    assert float(CrossEntropyLoss().of_sums(empty)) == 0
    combinations = list(itertools.product(("hard", "teacher"), (1, 2), (False, True), (False, True)))
    for number, case in enumerate(CASES + LONG if long else CASES):
        for kind, norm, masked, corners in combinations if long else combinations[5 * number :: 16]:
            compare(case, kind, norm, masked, corners)
    everything = torch.zeros(1, 4, 4, dtype=torch.bool)
    none = kernel_sums(torch.randn(1, 3, 2, 2), torch.zeros(1, 4, 4, dtype=torch.long), (4, 4), everything, 1, True)
    assert not any(part.any() for part in none)
    assert checked_sums(torch.randn(2, 3, 2, 2), torch.zeros(2, 4, 4, dtype=torch.long), (4, 4), None, 1, True) is not None
    print("right")


if __name__ == "__main__":
    main()
