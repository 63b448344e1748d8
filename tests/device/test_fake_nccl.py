"""What a run of several GPUs gives to NCCL lies on the GPU, and objects go to gloo: hazards that gloo alone would hide."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from segctl.errors import InputError
from tests.device.there import run_ranks_there

SIZE = 2
USED_IN_A_RUN = {
    ("nccl", "all_gather_into_tensor"), ("nccl", "all_gather"), ("nccl", "all_reduce"), ("nccl", "broadcast"),
    ("gloo", "all_reduce"), ("gloo", "all_gather_object"), ("gloo", "broadcast_object_list"),
}  # fmt: skip


def refusals(rank: int, size: int) -> list[str]:
    """What the fake itself refuses."""
    dist, there = torch.distributed, torch.ones(2, 3, device="cuda")
    attempts = {
        "several devices": lambda: dist.all_gather([torch.ones(2, 3)] * size, there),
        "contiguous": lambda: dist.all_reduce(there.T),
        "an object with": lambda: dist.all_gather_object([None] * size, {"a": [there]}),
    }
    for reason, attempt in attempts.items():
        with pytest.raises((RuntimeError, ValueError), match=reason):
            attempt()
    return list(attempts)


def collectives(rank: int, size: int) -> dict[str, Any]:
    """Everything that processes exchange in a run, with tensors where a run has them."""
    from segctl.losses.across_ranks import max_over_ranks, sum_over_ranks
    from segctl.runtime.device import require_own_gpus
    from segctl.runtime.synced_norm import SyncedBatchNorm
    from segctl.runtime.world import World
    from tests.device.fake_nccl import USED
    from tests.device.pretend import LOG

    world, mine = World(rank, size, size), images()[rank * 2 : rank * 2 + 2]
    norm, there = SyncedBatchNorm.of(nn.BatchNorm2d(3)).to("cuda"), mine.to("cuda").requires_grad_()
    LOG.clear()
    out = norm(there)
    out.square().sum().backward()
    waits = list(LOG.waits)
    module = nn.BatchNorm2d(3).to("cuda")
    module.running_mean.fill_(rank + 1)
    world.align(module)
    total = torch.full((2,), float(rank + 1), device="cuda").requires_grad_()
    sum_over_ranks(total).sum().backward()
    rows = world.gather_rows(torch.full((rank + 1, 2), float(rank), device="cuda"))
    with pytest.raises(InputError, match=r"2 processes on .* need one GPU each, and they have 1"):
        require_own_gpus(torch.device("cuda", 0), world)
    return {
        "waits": waits,
        "norm": out.detach().cpu(),
        "gradient": there.grad.cpu(),
        "aligned": module.running_mean.cpu(),
        "total": world.total(torch.tensor([1, rank])),
        "largest": world.largest(torch.tensor(rank)),
        "loss": max_over_ranks(total).cpu(),
        "rows": [part.cpu() for part in rows],
        "shared": world.share({"step": rank}),
        "used": USED,
    }


def images() -> Tensor:
    return torch.randn(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))


@pytest.mark.slow
def test_the_fake_refuses_what_nccl_refuses(guard: Path, tmp_path: Path) -> None:
    assert [len(found) for found in run_ranks_there(guard, tmp_path, refusals, SIZE)] == [3, 3]


@pytest.mark.slow
def test_tensors_of_gpus_go_to_nccl_and_the_rest_to_gloo(guard: Path, tmp_path: Path) -> None:
    first, second = run_ranks_there(guard, tmp_path, collectives, SIZE)
    x = images().requires_grad_()
    expected = nn.BatchNorm2d(3)(x)
    expected.square().sum().backward()
    torch.testing.assert_close(torch.cat([first["norm"], second["norm"]]), expected.detach())
    torch.testing.assert_close(torch.cat([first["gradient"], second["gradient"]]), x.grad, rtol=1e-3, atol=1e-5)
    for found in (first, second):
        assert found["aligned"].tolist() == [1.0] * 3
        assert found["total"].tolist() == [2, 1]
        assert int(found["largest"]) == 1
        assert found["loss"].tolist() == [2.0, 2.0]
        assert [part.tolist() for part in found["rows"]] == [[[0.0, 0.0]], [[1.0, 1.0]] * 2]
        assert found["shared"] == {"step": 0}
        assert found["waits"] == []  # torch's SyncBatchNorm waits three times
        assert found["used"] == USED_IN_A_RUN
