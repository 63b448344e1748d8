"""Several processes of one gloo group, for the tests of what they compute together."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

PRELOADED = ["pytest", "toy", "segctl.distillers", "segctl.engine.train", "torch.nn.parallel", "torch._dynamo"]


def run_in_processes(work: Callable[..., object], size: int, folder: Path) -> list[Any]:
    """What `work(rank, size)` gives in each of `size` processes, in the order of their ranks.

    The processes are forked from a server that has imported what they need once, and has computed nothing: a process of its own
    takes three seconds of a core to import torch.
    """
    multiprocessing.set_forkserver_preload(PRELOADED)
    mp.start_processes(_take_part, (work, size, folder), size, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def _take_part(rank: int, work: Callable[..., object], size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=size)
    torch.save(work(rank, size), folder / f"{rank}.pt")
    dist.destroy_process_group()
