"""Bytes counted from shapes: what a hand can add up, without the memory."""

import torch
from torch import nn

from segctl.runtime.live_bytes import GRAIN, LiveBytes, as_on_gpu, counting_bytes

KIB = 1024


def test_what_is_alive_at_once_is_the_peak() -> None:
    with LiveBytes() as memory:
        first = torch.zeros(KIB, 256)  # 1 MiB
        second = first + 1
        assert memory.live == 2 * 2**20
        del first
        view = second[:10].view(-1)  # no memory of its own
        third = second.bfloat16()
        assert memory.live == 2**20 + 2**19
        del second, third
        assert memory.live == 2**20  # the view keeps its tensor
        del view
        assert memory.live == 0
    assert memory.peak == 2 * 2**20


def test_a_small_tensor_takes_a_grain() -> None:
    with LiveBytes() as memory:
        one, another = torch.zeros(()), torch.zeros(129)
        assert memory.live == GRAIN + 2 * GRAIN
        del one, another


def test_the_backward_pass_frees_what_the_forward_pass_saved() -> None:
    with LiveBytes() as memory:
        x = torch.zeros(KIB, 256, requires_grad=True)
        y = x.exp().sin()  # both results of exp and its input are saved; that of sin is not
        assert memory.live == 3 * 2**20
        loss = y.sum()
        del y
        assert memory.live == 2 * 2**20 + GRAIN
        loss.backward()
        del loss
        assert x.grad is not None
        assert memory.live == 2 * 2**20  # x and its gradient


def test_nothing_is_computed_and_no_memory_taken() -> None:
    with LiveBytes() as memory:
        images = torch.zeros(1000, 64, 512, 1024)  # 125 GiB
        with torch.autocast("cpu", torch.bfloat16):
            maps = nn.Conv2d(64, 8, 1)(images)
        assert maps.dtype == torch.bfloat16
        assert bool((images == 0).all()) is False  # made up
        assert counting_bytes()
        assert as_on_gpu(images)
    assert memory.peak > 125 * 2**30
    assert not counting_bytes()
    assert not as_on_gpu(torch.zeros(1))
