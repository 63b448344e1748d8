"""Synchronised batch norm over two processes is batch norm over both batches, forward and backward."""

from pathlib import Path

import pytest
import torch
from forked import run_in_processes
from timm.layers.norm_act import BatchNormAct2d
from torch import Tensor, nn

from segctl.models.timm_backbone import synchronised
from segctl.runtime import synced_norm
from segctl.runtime.synced_norm import SyncedBatchNorm

IMAGES = (3, 2)
"""Of the two processes: unlike, as the last micro-batches of a batch can be."""


def norm_of(affine: bool) -> nn.BatchNorm2d:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(4, momentum=0.3, affine=affine)
    for weight in norm.parameters():
        nn.init.normal_(weight)
    return norm


def images_and_slopes() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    x = torch.randn(sum(IMAGES), 4, 5, 6, generator=random) + 100 * torch.arange(4).view(1, 4, 1, 1)  # means that could cancel
    return x, torch.randn(x.shape, generator=random)


def take_part(rank: int, size: int) -> list[Tensor]:
    found = []
    for affine in (True, False):
        norm = SyncedBatchNorm.of(norm_of(affine))
        x, slopes = (each.split(list(IMAGES))[rank] for each in images_and_slopes())
        x = x.to(memory_format=torch.channels_last).requires_grad_()
        out = norm(x)
        out.backward(slopes)
        found += [out.detach(), x.grad, *norm.buffers(), *(weight.grad for weight in norm.parameters())]
        found.append(norm.eval()(x).detach())
    return found


@pytest.mark.slow
def test_two_processes_are_one_batch(tmp_path: Path) -> None:
    shares = run_in_processes(take_part, 2, tmp_path)
    for affine in (True, False):
        norm = norm_of(affine)
        x, slopes = images_and_slopes()
        out = norm(x.requires_grad_())
        out.backward(slopes)
        expected = [out, x.grad, *norm.buffers(), *(weight.grad for weight in norm.parameters()), norm.eval()(x)]
        mine, shares = [share[: len(expected)] for share in shares], [share[len(expected) :] for share in shares]
        assert torch.allclose(torch.cat([share[0] for share in mine]), expected[0], atol=1e-4)
        assert torch.allclose(torch.cat([share[1] for share in mine]), expected[1], atol=1e-4)
        for index in (2, 3, 4):  # the running statistics and the counter, alike on both
            assert all(torch.allclose(share[index], expected[index], rtol=1e-5) for share in mine)
        if affine:  # a process has the gradients of its own images; DDP adds them up
            for index in (5, 6):
                assert torch.allclose(mine[0][index] + mine[1][index], expected[index], rtol=1e-4, atol=1e-4)
        assert torch.allclose(torch.cat([share[-1] for share in mine]), expected[-1], atol=1e-4)


def test_alone_it_is_batch_norm_and_keeps_the_weights_names() -> None:
    norm = norm_of(True)
    synced = SyncedBatchNorm.of(norm)
    assert list(synced.state_dict()) == list(norm.state_dict())
    assert synced.weight is norm.weight
    assert synced.running_mean is norm.running_mean
    x, _ = images_and_slopes()
    expected = norm_of(True)(x)
    assert torch.equal(synced(x), expected)


def test_the_gradient_by_finite_differences(monkeypatch: pytest.MonkeyPatch) -> None:
    """A world of one that still takes the way of many."""
    monkeypatch.setattr(synced_norm.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(synced_norm.dist, "get_world_size", lambda: 2)
    # The other process has the same batch: gathering repeats, and summing doubles.
    monkeypatch.setattr(synced_norm.dist, "all_gather_into_tensor", lambda out, mine: out.copy_(mine.repeat(2)))
    monkeypatch.setattr(synced_norm.dist, "all_reduce", lambda sums: sums.mul_(2))
    norm = SyncedBatchNorm.of(norm_of(True).double())
    x = torch.randn(2, 4, 3, 3, dtype=torch.float64, requires_grad=True)

    # Moving a pixel moves it in the other process too, so the numerical gradient of one process's output is the whole one.
    assert torch.autograd.gradcheck(norm, (x,))


def test_half_precision_keeps_statistics_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    x = (torch.randn(2, 4, 8, 8) * 3 + 7).bfloat16()
    mean, invstd = synced_norm.stats(x, 1e-5)
    assert mean.dtype == invstd.dtype == torch.float32
    assert torch.allclose(mean, x.float().mean((0, 2, 3)), atol=1e-5)
    out = synced_norm.elemt(x, None, None, mean, invstd, 1e-5)
    assert out.dtype == torch.bfloat16
    assert abs(float(out.float().std()) - 1) < 0.01


def test_all_norms_of_a_network_are_synchronised_but_an_opponent_s() -> None:
    """A penalty on the opponent's gradient differentiates its norm twice."""
    net = nn.Sequential(BatchNormAct2d(4), nn.Sequential(nn.BatchNorm2d(4)), nn.Sequential(nn.BatchNorm2d(4)))
    names, x = list(net.state_dict()), torch.randn(2, 4, 3, 3)
    expected = net.eval()(x)
    synchronised(net, apart=[net[2]])
    assert [isinstance(norm, SyncedBatchNorm) for norm in (net[0], net[1][0], net[2][0])] == [True, True, False]
    assert list(net.state_dict()) == names
    torch.testing.assert_close(net(x), expected)
