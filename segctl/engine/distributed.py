"""The only file that knows torch.distributed: who am I, and what do we have together?"""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among its peers. With one process every method hands back what it was given."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Everybody's value in rank order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]


def join_world() -> World:
    """The world a launcher has started this process in (RANK, WORLD_SIZE and so on), or a world of one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return World()
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    return World(dist.get_rank(), size)


def leave_world() -> None:
    """Close the connections that `join_world` opened."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def under_launcher() -> bool:
    """Whether a launcher has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def launch(processes: int, arguments: Sequence[str]) -> int:
    """Run `segctl ARGUMENTS` in that many local processes through torch's launcher, on a free port; the exit code."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = os.environ | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(_threads_each(processes)))}
    return subprocess.run([*command, "-m", "segctl", *arguments], env=environment, check=False).returncode


def _threads_each(processes: int) -> int:
    return max(1, (os.cpu_count() or 1) // processes)
