"""A teacher whose weights are spread over two processes gives what it gives in one."""

from pathlib import Path

import pytest
import torch
from forked import run_in_processes
from torch import nn
from toy import CLASSES, PRESET, toy_run

from segctl.models import build_model
from segctl.models.averaged import AveragedNetwork
from segctl.models.forward import forward_images
from segctl.runtime.sharding import _parts, parts_that_run, shard_frozen
from segctl.runtime.world import World


def outputs(rank: int, size: int) -> dict[str, tuple[float, float]]:
    """The largest difference to the whole network and this process's share of the weights, for a network and two views of one."""
    images = torch.randint(0, 255, (2, 48, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return {name: compared(name == "views", images, World(rank, size)) for name in ("network", "views")}


def compared(views: bool, images: torch.Tensor, world: World) -> tuple[float, float]:
    torch.manual_seed(0)
    network = build_model(toy_run(PRESET).model, CLASSES).eval()
    teacher = AveragedNetwork([network], [1.0], ["a"] * CLASSES, flip=True) if views else network
    wanted: list[torch.Tensor] = []
    called = parts_that_run(teacher, lambda: wanted.append(forward_images(teacher, images).logits))
    number = sum(weight.numel() for weight in teacher.parameters())
    shard_frozen(teacher, called, torch.device("cpu"), world)
    share = sum(weight.to_local().numel() for weight in teacher.parameters()) / number
    with torch.inference_mode():
        found = [forward_images(teacher, images).logits for _ in range(2)]
    return max(float((each - wanted[0]).abs().max()) for each in found), share


@pytest.mark.slow
def test_two_processes_hold_half_of_a_network_each_and_give_its_outputs(tmp_path: Path) -> None:
    for found in run_in_processes(outputs, 2, tmp_path):
        for difference, share in found.values():
            assert difference <= 1e-6
            assert 0.45 < share < 0.55


def test_parts_are_those_that_run_and_are_small() -> None:
    class Tied(nn.Module):
        """Reads the weight of a part that it does not call, as torch's attention does."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.inner.weight

    network = nn.Sequential(nn.ModuleList([nn.Linear(4, 4), Tied()]), nn.ReLU())
    blocks = network[0]
    called = parts_that_run(network, lambda: blocks[1](blocks[0](torch.zeros(1, 4))))
    assert list(_parts(network, called, most=20)) == [blocks[0], blocks[1]]
    assert list(_parts(network, called, most=1)) == [blocks[0], blocks[1]]  # none of them has a part that runs
