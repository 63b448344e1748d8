"""A loss of sums in one kernel: what becomes of a wrong one, and the sums over several processes that it takes.

The kernels' numbers are tested in `interpreted_kernels.py`.
"""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from segctl.losses import CrossEntropyLoss, JDTLoss
from segctl.losses.sums import on_gpu
from segctl.losses.sums.on_gpu import SumTables
from segctl.losses.sums.plain import Sums
from segctl.runtime import fast_way

HALF = ([[[1.0]], [[2.0]], [[-3.0]]], [[[1.0]], [[1.0]], [[0.0]]])
"""One image and one class with tp 1, 2 predicted and 1 labelled: an IoU of 1/2, and a cross-entropy of 3."""


@pytest.fixture(autouse=True)
def _no_verdicts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast_way, "_verdicts", {})


def give(monkeypatch: pytest.MonkeyPatch, value: float, slope: float) -> list[str]:
    """Kernels that write these numbers; the returned list tells which were started."""
    started: list[str] = []

    def kernel(name: str) -> dict[object, Any]:
        def start(
            learned: Tensor, counted: Tensor, weights: Tensor, out: Tensor, gradient: Tensor, *rest: Any, **more: Any
        ) -> None:
            started.append(name)
            out.fill_(value)
            gradient.zero_()[2] = slope

        return {(1, 1, 1): start}

    kernels = SimpleNamespace(mean_of_sums=kernel("mean"), ratio_of_sums=kernel("ratio"))
    monkeypatch.setattr(on_gpu, "triton_kernels", lambda: kernels)
    return started


def tables() -> SumTables:
    return SumTables.of(torch.tensor(HALF[0]).requires_grad_(), torch.tensor(HALF[1]))


def test_a_right_kernel_is_taken_for_value_and_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    started = give(monkeypatch, 3.0, -1.0)
    sums = tables()
    value = CrossEntropyLoss().of_sums(sums)
    (2 * value).backward()
    assert (value.item(), started) == (3.0, ["mean", "mean"])  # the first one was the trial
    assert sums.learned is not None
    assert sums.learned.grad is not None
    assert sums.learned.grad.flatten().tolist() == [0.0, 0.0, -2.0]


def test_a_wrong_kernel_is_left_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    give(monkeypatch, 3.1, -1.0)
    with pytest.warns(
        UserWarning, match="do not use their GPU kernels .losses.: they differ from torch's own operations by 0.033"
    ):
        value = CrossEntropyLoss().of_sums(tables())
    assert value.item() == 3.0


def test_two_processes_take_the_ratio_of_both_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other process has the same images, so every sum is twice this one's."""

    def all_reduce(values: Tensor, operation: Any = dist.ReduceOp.SUM) -> None:
        if operation == dist.ReduceOp.SUM:
            values *= 2

    monkeypatch.setattr(dist, "all_reduce", all_reduce)
    for module in ("across_ranks", "jdt"):
        monkeypatch.setattr(f"segctl.losses.{module}.among_others", lambda: True)
    monkeypatch.setattr(fast_way, "is_right", lambda *arguments: False)  # the arithmetic by torch
    torch.manual_seed(0)
    learned, counted = torch.rand(3, 2, 4).requires_grad_(), 1 + torch.rand(3, 2, 4)
    loss = JDTLoss(smooth=1.0, reduce="global", active_hard="all")
    found = loss.of_sums(SumTables.of(learned, counted), hard=True)
    wanted = loss.of_sums(Sums(*SumTables.of(learned, counted)), hard=True)
    slopes = [torch.autograd.grad(value, learned)[0] for value in (found, wanted)]
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    assert torch.allclose(*slopes, rtol=1e-5)
    tp, predicted, labelled = 2 * learned[0].sum(0), 2 * learned[1].sum(0), 2 * counted[0].sum(0)
    assert found.item() == pytest.approx((1 - (tp + 1) / (predicted + labelled - tp + 1)).mean().item(), rel=1e-5)
