"""The pretend device itself: it refuses what a GPU refuses, and tells what a GPU would make the host wait for."""

from pathlib import Path

import pytest
import torch
from torch import nn

from tests.device.there import run_there

GPU = "cuda"


def mixing() -> list[str]:
    there, here = torch.ones(3, device=GPU), torch.ones(3)
    attempts = [
        lambda: there + here,
        lambda: torch.cat([there, here]),
        lambda: nn.functional.linear(there, torch.ones(2, 3)),
        lambda: here[torch.zeros(1, dtype=torch.long, device=GPU)],
        lambda: torch.where(there > 0, there, here),
    ]
    found = []
    for attempt in attempts:
        with pytest.raises(RuntimeError, match="same device"):
            attempt()
        found.append("refused")
    assert (there + torch.tensor(2.0)).device.type == "cuda"  # a single number may come along
    with pytest.raises(TypeError, match="cuda"):
        there.numpy()
    return found


def waits() -> dict[str, list[str]]:
    from tests.device.pretend import LOG

    values = torch.arange(6.0, device=GPU)
    memory = torch.ones(4)
    locked = memory.pin_memory()
    LOG.clear()
    found: dict[str, list[str]] = {}
    for name, act in {
        "item": lambda: values.sum().item(),
        "bool": lambda: bool(values.sum() > 0),
        "tolist": lambda: values.tolist(),
        "boolean index": lambda: values[values > 2],
        "nonzero": lambda: values.nonzero(),
        "index from the CPU": lambda: values[torch.tensor([0])],
        "down": lambda: values.cpu(),
        "up": lambda: memory.to(GPU, non_blocking=True),
        "up, locked": lambda: locked.to(GPU),
        "up, locked, not blocking": lambda: locked.to(GPU, non_blocking=True),
        "a number": lambda: torch.tensor(1.0, device=GPU),
        "made there": lambda: torch.full((3,), 2.0, device=GPU),
        "arithmetic": lambda: (values * 2 + 1).sort(),
        "synchronize": torch.cuda.synchronize,
    }.items():
        act()
        found[name] = [what for what, _ in LOG.waits]
        LOG.clear()
    return found


def gradients() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    def of(device: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).to(device)
        x = torch.randn(2, 3, 8, 8).to(device).requires_grad_()
        net(x).square().mean().backward()
        assert x.grad is not None
        assert x.grad.device.type == device
        return [x.grad.cpu(), *(weight.grad.cpu() for weight in net.parameters()), *(each.cpu() for each in net.buffers())]

    return of("cpu"), of(GPU)


@pytest.mark.slow
def test_devices_do_not_mix(guard: Path, tmp_path: Path) -> None:
    assert run_there(guard, tmp_path, mixing) == ["refused"] * 5


def test_waits_are_told_apart_from_work(guard: Path, tmp_path: Path) -> None:
    assert run_there(guard, tmp_path, waits) == {
        "item": ["item"],
        "bool": ["item"],
        "tolist": ["tolist"],
        "boolean index": ["boolean index"],
        "nonzero": ["nonzero"],
        "index from the CPU": ["index on the CPU"],
        "down": ["copy to the CPU"],
        "up": ["copy to the device from memory that is not page-locked (4,)"],
        "up, locked": ["copy to the device that blocks (4,)"],
        "up, locked, not blocking": [],
        "a number": ["copy to the device from memory that is not page-locked ()"],
        "made there": [],
        "arithmetic": [],
        "synchronize": ["synchronize"],
    }


def test_gradients_are_those_of_the_cpu(guard: Path, tmp_path: Path) -> None:
    here, there = run_there(guard, tmp_path, gradients)
    assert all(torch.equal(mine, other) for mine, other in zip(here, there, strict=True))
