"""Processes for the tests, forked from a server that has imported torch and segctl once and has computed nothing.

A process that imports torch by itself takes three seconds of a core, before it does what is tested.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from segctl.cli import main

PRELOADED = ["pytest", "toy", "forked", "segctl.train.start", "torch.nn.parallel", "torch._dynamo"]


def preload() -> None:
    """Say what the server is to import. It must be said before anything starts the server."""
    multiprocessing.set_forkserver_preload(PRELOADED)


def start_segctl(arguments: list[str]) -> BaseProcess:
    """`segctl ARGUMENTS` in a process of its own, on one thread, as in this one: it computes the same bits."""
    process = multiprocessing.get_context("forkserver").Process(target=_segctl, args=(arguments,))
    process.start()
    return process


def kill(process: BaseProcess) -> None:
    """SIGKILL, and wait until it is gone. Its loader workers outlive it by up to 5 s, and `join` would wait for them."""
    assert process.pid is not None
    process.kill()
    with suppress(ProcessLookupError):
        while True:
            os.kill(process.pid, 0)
            time.sleep(0.001)


def _segctl(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    multiprocessing.set_start_method(
        "fork", force=True
    )  # as in any other segctl: here loader workers would start a second server
    sys.exit(main(arguments))


def run_in_processes(work: Callable[..., object], size: int, folder: Path) -> list[Any]:
    """What `work(rank, size)` gives in each of `size` processes of one gloo group, in the order of their ranks."""
    mp.start_processes(_take_part, (work, size, folder), size, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(size)]


def _take_part(rank: int, work: Callable[..., object], size: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder / 'meeting'}", rank=rank, world_size=size)
    torch.save(work(rank, size), folder / f"{rank}.pt")
    dist.destroy_process_group()
