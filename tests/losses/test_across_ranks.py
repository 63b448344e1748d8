"""Losses over several processes: P processes with parts of a batch are one process with the whole of it."""

from typing import Any

import pytest
import torch
from forked import run_in_processes
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segctl.losses.across_ranks import max_over_ranks, sum_over_ranks
from segctl.losses.jdt import JDTLoss

RANKS = 2
OPTIONS: dict[str, dict[str, float | str]] = {
    "D": {},
    "I": {"miou_d": 0.0, "miou_i": 1.0},
    "C": {"miou_d": 0.0, "miou_c": 1.0},
    "all three, dice, focal": {"miou_i": 0.5, "miou_c": 0.25, "alpha": 0.5, "beta": 0.5, "gamma": 1.5},
    "D, log, norm 2": {"log_loss": True, "smooth": 1.0, "norm": 2},
    "D, I, products": {"miou_i": 0.5, "overlap": "product"},
    "D, C, classes by prediction": {"miou_c": 0.5, "active_hard": "both", "active_soft": "probability", "threshold": 0.5},
}


def loss_of(options: str, reduce: str) -> JDTLoss:
    usual: dict[str, Any] = {"active_soft": "present", "threshold": 0.3}
    return JDTLoss(ignore_index=255, reduce=reduce, **(usual | OPTIONS[options]))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), nn.Conv2d(4, 5, 1)).double()


def batch(soft: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Six images, of which rank 0 has the first two and rank 1 the rest; one is wholly ignored, and classes are uneven."""
    torch.manual_seed(1)
    images, label = torch.randn(6, 3, 4, 5, dtype=torch.float64), torch.randint(0, 5, (6, 4, 5))
    label[:2] %= 2
    label[4] = 255
    keep = (label != 255) & (torch.rand(6, 4, 5) < 0.9)
    return images, torch.randn(6, 5, 4, 5, dtype=torch.float64).mul(2).softmax(1) if soft else label, keep


def part_of(rank: int) -> slice:
    return slice(0, 2) if rank == 0 else slice(2, 6)


def train_one_part(rank: int, size: int) -> dict[str | tuple[str, bool], Any]:
    """What one process sees: for every option and label form, its loss value and DDP's averaged gradients."""
    found: dict[str | tuple[str, bool], Any] = {}
    for options in OPTIONS:
        for soft in (False, True):
            model = DistributedDataParallel(network())
            images, label, keep = (tensor[part_of(rank)] for tensor in batch(soft))
            value = loss_of(options, "global")(model(images), label, keep)
            torch.autograd.backward(value)
            found[options, soft] = (value.item(), [parameter.grad.clone() for parameter in model.parameters()])
    found["sum"] = sum_over_ranks(torch.tensor([1.0 + rank])).tolist()
    found["max"] = max_over_ranks(torch.tensor([1.0 + rank, -rank])).tolist()
    return found


@pytest.fixture(scope="module")
def of_ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict]:
    return run_in_processes(train_one_part, RANKS, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("soft", [False, True])
def test_parts_of_a_batch_on_two_processes_give_value_and_gradients_of_the_whole(
    options: str, soft: bool, of_ranks: list[dict]
) -> None:
    model, (images, label, keep) = network(), batch(soft)
    whole = loss_of(options, "local")(model(images), label, keep)
    torch.autograd.backward(whole)
    for found in of_ranks:
        value, gradients = found[options, soft]
        assert value == pytest.approx(whole.item(), abs=1e-9)
        for gradient, parameter in zip(gradients, model.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad, rtol=0, atol=1e-9)


def test_the_case_tells_global_from_local_ratios() -> None:
    """Otherwise the test above would prove nothing: the mean of two local losses is another number."""
    images, label, keep = batch(soft=False)
    loss, logits = loss_of("D", "local"), network()(images)
    parts = [loss(logits[part_of(rank)], label[part_of(rank)], keep[part_of(rank)]).item() for rank in range(RANKS)]
    assert abs(sum(parts) / RANKS - loss(logits, label, keep).item()) > 1e-3


def test_sums_and_maxima_are_over_ranks(of_ranks: list[dict]) -> None:
    for found in of_ranks:
        assert found["sum"] == [3.0]
        assert found["max"] == [2.0, 0.0]


def test_a_process_by_itself_is_the_whole_run() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 5, 8), torch.randint(0, 5, (2, 8))
    assert loss_of("all three, dice, focal", "global")(logits, label) == loss_of("all three, dice, focal", "local")(logits, label)
