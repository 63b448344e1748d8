"""Who am I among the processes of a run, and what do we have together? Only this file and processes.py know torch.distributed.

The same command runs in one process, under torch's launcher (RANK, WORLD_SIZE, ...) and under Slurm's srun (SLURM_PROCID, ...).
"""

import os
import re
import warnings
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as _Averaged

from segctl.errors import PeerError, SegctlError

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""How long processes wait for each other: one may learn masks for hours. A death is noticed at once, by the connection."""

COMMUTING = 2
"""Processes whose sums do not depend on the order."""

LOST = ("connection closed by peer", "connection reset by peer", "broken pipe", "connection refused", "nccl")
"""What an operation says, in lower case, when the process at its other end has gone."""


@dataclass(frozen=True)
class World:
    """This process among its peers. With one process every method hands back what it was given.

    rank, size: among all.  local_size: how many of them share this machine.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints. A value to hand on: what is to be done, `on_main` does."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """Everybody's value in rank order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[T | None] = [None] * self.size
        dist.all_gather_object(values, value)
        return values  # type: ignore[return-value]

    def share(self, value: T) -> T:
        """The main process's value, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def gather_rows(self, rows: Tensor) -> list[Tensor]:
        """Everybody's rows (R, D), of which each may have another number, in rank order, on every rank; without gradient."""
        if self.size == 1:
            return [rows]
        lengths = self.gather(len(rows))
        padded = rows.new_zeros((max(lengths), *rows.shape[1:]))
        padded[: len(rows)] = rows.detach()
        found = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(found, padded)
        return [part[:length] for part, length in zip(found, lengths, strict=True)]

    def total(self, values: Tensor) -> Tensor:
        """The sum of everybody's values (same shape and type on each, in main memory), on every rank."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, values: Tensor) -> Tensor:
        """The largest of everybody's values, element by element, as `total` sums them."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def together(self, work: Callable[[], T]) -> T:
        """Do something that every process does; where it fails on one, all end: the first of them with its error, the
        others with a PeerError, so that it is said once."""
        if self.size == 1:
            return work()
        result: T | None = None
        mine: SegctlError | None = None
        try:
            result = work()
        except SegctlError as error:
            mine = error
        codes = self.gather(None if mine is None else mine.exit_code)
        first = next((rank for rank, code in enumerate(codes) if code is not None), None)
        if first is None:
            return result  # type: ignore[return-value]
        if mine is not None and first == self.rank:
            raise mine
        raise PeerError(codes[first] or 1)

    def wait(self) -> None:
        """Until everybody is here."""
        if self.size > 1:
            dist.barrier()

    def on_main(self, work: Callable[[], T]) -> T | None:
        """Do something on the main process alone, such as writing a file; the others go on with None, without waiting."""
        return work() if self.is_main else None

    def main_first(self, work: Callable[[], None]) -> None:
        """Do something on the main process, and then on the others, which find what it left."""
        for turn in (True, False):
            if self.is_main is turn:
                work()
            self.wait()

    def wrap(self, task: nn.Module, *, unused: bool) -> nn.Module:
        """The task, its gradients averaged over the processes. `unused`: some parameters may get none.

        Buffers stay each process's own until `align`: only batch norm's running statistics differ, which no training step reads.
        torch would sort gradients into other parcels after the first step, and a sum over three processes and more depends on a
        value's place in its parcel: a resumed run's first step would differ from the same step of one that went on.  Where it
        looks for parameters without a gradient, it does not sort.
        """
        if self.size == 1:
            return task
        device = next(task.parameters()).device
        places = [device.index] if device.type == "cuda" else None
        # torch 2.15 has renamed the option.
        name = next(name for name in ("forward_sync_buffers", "broadcast_buffers") if name in signature(_Averaged).parameters)
        options: dict[str, Any] = {name: False}
        # torch says so once if all parameters have a gradient; here that is no advice.
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
        return _Averaged(task, device_ids=places, find_unused_parameters=unused or self.size > COMMUTING, **options)

    def align(self, module: nn.Module) -> None:
        """Give every process the main one's buffers."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    @contextmanager
    def losing_peers(self) -> Iterator[None]:
        """Say in one sentence that another process has gone, where an operation with it fails."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not any(sign in str(error).lower() for sign in LOST):
                raise
            raise PeerError() from error

    def _reduced(self, values: Tensor, operation: "dist.ReduceOp.RedOpType") -> Tensor:
        if self.size == 1:
            return values
        reduced = values.clone()
        dist.all_reduce(reduced, operation)
        return reduced


def without_averaging(task: nn.Module) -> AbstractContextManager[None]:
    """Backward passes in here add to this process's own gradients, which a later one outside averages."""
    return task.no_sync() if isinstance(task, _Averaged) else nullcontext()


def join_world() -> World:
    """The world that a launcher has started this process in, or a world of one."""
    adopt_slurm(os.environ)
    if not under_launcher():
        return World()
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    return World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


@contextmanager
def joined_world() -> Iterator[World]:
    """The world for as long as it is needed; the loss of a peer in it is a PeerError."""
    world = join_world()
    try:
        with world.losing_peers():
            yield world
    finally:
        leave_world()


def leave_world() -> None:
    """Close the connections that `join_world` opened."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def under_launcher() -> bool:
    """Whether a launcher has started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", "1"))) > 1


def adopt_slurm(environment: MutableMapping[str, str]) -> None:
    """Turn srun's variables into those of torch's launcher. A batch script's own have no step, and start nothing."""
    if "WORLD_SIZE" in environment or int(environment.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
        return
    job, step = int(environment.get("SLURM_JOB_ID", "0")), int(environment.get("SLURM_STEP_ID", "0"))
    local = environment.get("SLURM_STEP_TASKS_PER_NODE", "1")
    values = {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment.get("SLURM_LOCALID", "0"),
        "LOCAL_WORLD_SIZE": re.match(r"\d+", local)[0] if re.match(r"\d+", local) else "1",  # type: ignore[index]
        "MASTER_ADDR": _first_host(environment.get("SLURM_STEP_NODELIST", "localhost")),
        # Steps of one job, and jobs on one machine, must not meet at one port.
        "MASTER_PORT": str(20_000 + (job * 131 + step) % 20_000),
    }
    for name, value in values.items():
        environment.setdefault(name, value)


def _first_host(hosts: str) -> str:
    """The first of Slurm's list of hosts: `gpu[03-05,9],login` -> gpu03."""
    found = re.match(r"([^,\[]+)(?:\[(\d+))?", hosts)
    return "localhost" if found is None else found[1] + (found[2] or "")
