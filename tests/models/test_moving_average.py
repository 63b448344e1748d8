"""The moving average of weights is torch's, to the bit; and a step that fp16 skipped leaves it alone."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segctl.models.moving_average import MovingAverage

DECAY = 0.9


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1).double())


def changed(net: nn.Module) -> None:
    """Other weights and statistics, as after a step."""
    for each in (*net.parameters(), *net.buffers()):
        each.data.add_(torch.rand(each.shape).to(each) if each.is_floating_point() else 1)


def test_it_is_torch_s_average_to_the_bit_and_counters_are_copied() -> None:
    net = network()
    ours = MovingAverage(net, DECAY)
    theirs = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for _ in range(4):
        changed(net)
        ours.update(net)
        theirs.update_parameters(net)
    for (name, mine), (_, other) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        expected = net.state_dict()[name.removeprefix("module.")] if "num_batches" in name else other
        assert torch.equal(mine, expected), name
    assert ours.n_averaged == 4


def test_by_hand() -> None:
    net = nn.Linear(1, 1, bias=False)
    average = MovingAverage(net, 0.75)
    for value in (4.0, 8.0):
        nn.init.constant_(net.weight, value)
        average.update(net)
    assert average.module.weight.item() == 5.0  # 0.75 · 4 + 0.25 · 8


def test_from_the_mean_by_hand() -> None:
    net = nn.Linear(1, 1, bias=False)
    average = MovingAverage(net, 0.75, from_mean=True)
    seen = []
    for value in (4.0, 8.0, 0.0, 8.0, 0.0):
        nn.init.constant_(net.weight, value)
        average.update(net)
        seen.append(average.module.weight.item())
    assert seen == pytest.approx([4, 6, 4, 5, 3.75])  # the means of the first four, then 0.75 · 5 + 0.25 · 0


@pytest.mark.parametrize("from_mean", [False, True])
def test_a_skipped_step_changes_nothing_and_the_first_taken_one_is_copied(from_mean: bool) -> None:
    net = network()
    average, plain = (MovingAverage(net, DECAY, from_mean=from_mean) for _ in range(2))
    for taken in (False, True, False, True, True):
        if taken:
            changed(net)
            plain.update(net)
        before = {name: value.clone() for name, value in average.state_dict().items()}
        average.update(net, torch.tensor(taken))
        if not taken:
            assert all(torch.equal(value, before[name]) for name, value in average.state_dict().items())
    assert average.n_averaged == plain.n_averaged == 3
    for name, value in average.state_dict().items():
        assert torch.allclose(value, plain.state_dict()[name], rtol=0, atol=1e-6), name


@pytest.mark.parametrize("from_mean", [False, True])
def test_a_loaded_average_goes_on(from_mean: bool) -> None:
    net = network()
    first = MovingAverage(net, DECAY, from_mean=from_mean)
    first.update(net)
    changed(net)
    second = MovingAverage(network(), DECAY, from_mean=from_mean)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    first.update(net)
    second.update(net)
    assert all(torch.equal(value, first.state_dict()[name]) for name, value in second.state_dict().items())
    with pytest.raises(RuntimeError):
        second.load_state_dict({})
