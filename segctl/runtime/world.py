"""The processes of a run: which one this is, and what they exchange. Only runtime/ and losses/across_ranks.py use
torch.distributed.

The same command runs in one process, under torch's launcher (RANK, WORLD_SIZE, ...) and under Slurm's srun (SLURM_PROCID, ...).
"""

import atexit
import os
import re
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature
from typing import Any, NoReturn, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel as _Averaged

from segctl.errors import PeerError, SegctlError, first_line

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""How long processes wait for each other in main memory. One may learn masks for hours; gloo notices a dead process at once."""

GPU_PATIENCE = timedelta(minutes=30)
"""How long GPUs wait for each other: inside a step, where all processes do the same."""

ARRIVAL = timedelta(minutes=10)
"""How long a process waits at the start until all processes are there. A cluster may start some minutes after others."""

AGAIN_S = 0.02
"""How often to look whether the other processes are there."""

SILENCE_S = 5.0
"""After this many seconds of waiting at the start, say whom the process waits for."""

ORDER_FREE_PROCESSES = 2
"""A sum over at most this many processes does not depend on the order of its terms, because a + b = b + a exactly."""

LOST = (
    "connection closed by peer", "connection reset by peer", "broken pipe", "connection refused",
    "connection closed by remote peer", "remote process exited", "ncclremoteerror",
)  # fmt: skip
"""Parts of an operation's error message, in lower case, if the process at its other end has ended."""

NCCL_LINES = 4
"""Lines of NCCL's text in a message: the place, the kind of error, what it means, and the last error of the library."""


@dataclass(frozen=True)
class World:
    """This process among the processes of its run. With one process every method returns what it was given.

    rank, size: among all processes.  local_size: how many of them share this machine.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints. To do something on the main process only, call `on_main`."""
        return self.rank == 0

    def gather(self, value: T) -> list[T]:
        """The values of all processes in rank order, on every rank."""
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
        """The rows (R, D) of all processes in rank order, on every rank, without gradient; R may differ between processes."""
        if self.size == 1:
            return [rows]
        lengths = self.gather(len(rows))
        padded = rows.new_zeros((max(lengths), *rows.shape[1:]))
        padded[: len(rows)] = rows.detach()
        found = [torch.empty_like(padded) for _ in lengths]
        dist.all_gather(found, padded)
        return [part[:length] for part, length in zip(found, lengths, strict=True)]

    def total(self, values: Tensor) -> Tensor:
        """The sum over all processes, on every rank. Values have the same shape and dtype everywhere and lie in main memory."""
        return self._reduced(values, dist.ReduceOp.SUM)

    def largest(self, values: Tensor) -> Tensor:
        """The maximum over all processes, element by element, on every rank; values of any shape, as for `total`."""
        return self._reduced(values, dist.ReduceOp.MAX)

    def together(self, work: Callable[[], T]) -> T:
        """Do the same work on every process. If it fails on one of them, all raise: the first with its own error, the others
        with a PeerError, so that the error is printed once."""
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
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()

    def on_main(self, work: Callable[[], T]) -> T | None:
        """Do something on the main process only, such as writing a file. The others get None and do not wait."""
        return work() if self.is_main else None

    def from_main(self, work: Callable[[], T]) -> T:
        """Do something on the main process only and return its result on every rank; if it fails there, all raise."""
        result: T | None = self.share(self.together(lambda: self.on_main(work)))
        return result  # type: ignore[return-value]

    def main_first(self, work: Callable[[], None]) -> None:
        """Do something on the main process first, then on the others, which find what it wrote."""
        for turn in (True, False):
            if self.is_main is turn:
                work()
            self.wait()

    def wrap(self, task: nn.Module, *, unused: bool, exact: bool = True) -> nn.Module:
        """The task with its gradients averaged over the processes. `unused`: some parameters may get no gradient.

        exact: whether a resumed run has to take the very steps of an uninterrupted one. With three or more processes that costs a
        search for unused parameters in every step, which is a walk through the graph and a small sum over the processes.
        Each process keeps its own buffers until `align`: only batch norm's running statistics differ, and no training step
        reads them.
        """
        if self.size == 1:
            return task
        device = next(task.parameters()).device
        places = [device.index] if device.type == "cuda" else None
        # torch 2.15 renamed the option.
        name = next(name for name in ("forward_sync_buffers", "broadcast_buffers") if name in signature(_Averaged).parameters)
        options: dict[str, Any] = {name: False}
        # torch advises against looking for unused parameters where all have a gradient; here there is another reason for it.
        # By default torch regroups the gradients into other buckets after the first step, and a sum over three or more
        # processes depends on a value's place in its bucket. The first step of a resumed run would then differ from the same
        # step of an uninterrupted one. torch does not regroup where it looks for unused parameters.
        warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
        search = unused or (exact and self.size > ORDER_FREE_PROCESSES)
        return _Averaged(task, device_ids=places, find_unused_parameters=search, **options)

    def align(self, module: nn.Module) -> None:
        """Copy the main process's buffers to every process."""
        if self.size > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    @contextmanager
    def losing_peers(self) -> Iterator[None]:
        """Raise PeerError if an operation fails because another process has ended, and SegctlError with NCCL's own words if NCCL
        fails for another reason, such as two processes on one GPU or a driver that is too old."""
        try:
            yield
        except RuntimeError as error:
            text = str(error)
            if self.size == 1:
                raise
            if any(sign in text.lower() for sign in LOST):
                raise PeerError(detail=first_line(error)) from error
            if "nccl" in text.lower():
                lines = [line.strip() for line in text.splitlines() if line.strip()]
                raise SegctlError(
                    f"process {self.rank} of {self.size} failed in NCCL: {' '.join(lines[:NCCL_LINES])}",
                    "NCCL_DEBUG=INFO shows more; NCCL_P2P_DISABLE=1 or NCCL_IB_DISABLE=1 avoid broken links",
                ) from error
            raise

    def _reduced(self, values: Tensor, operation: "dist.ReduceOp.RedOpType") -> Tensor:
        """`values` of all processes reduced to one tensor of their shape; with one process, `values` itself."""
        if self.size == 1:
            return values
        reduced = values.clone()
        dist.all_reduce(reduced, operation)
        return reduced


def without_averaging(task: nn.Module) -> AbstractContextManager[None]:
    """Backward passes in this context only add to this process's gradients; a later one outside averages them."""
    return task.no_sync() if isinstance(task, _Averaged) else nullcontext()


def join_world(note: Callable[[str], None] = lambda text: None) -> World:
    """The processes that a launcher started together with this one, or this process alone.

    note: called with a sentence if the others take long.  Raises SegctlError if they are not all there within `ARRIVAL`.
    """
    adopt_slurm(os.environ)
    if not under_launcher():
        return World()
    if not dist.is_initialized():
        _wait_for_all(note)
    return World(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def _wait_for_all(note: Callable[[str], None]) -> None:
    """Connect to all processes, in a thread: the main thread would not see Ctrl-C while torch waits for a connection."""
    size, rank = os.environ.get("WORLD_SIZE"), os.environ.get("RANK")
    place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    failures: list[Exception] = []

    def work() -> None:
        try:
            _connect()
        except Exception as error:  # raised below, in the main thread
            failures.append(error)

    # One process of each machine speaks.
    thread, began, said = threading.Thread(target=work, daemon=True), time.monotonic(), os.environ.get("LOCAL_RANK", "0") != "0"
    thread.start()
    while thread.is_alive():
        thread.join(0.05)
        if not said and time.monotonic() - began > SILENCE_S:
            said = True
            note(f"process {rank} waits at {place} for all {size} processes of this run, at most {ARRIVAL.seconds // 60} minutes")
    if not failures:
        return
    if not isinstance(failures[0], RuntimeError):  # torch's errors of connections are RuntimeErrors
        raise failures[0]
    raise SegctlError(
        f"process {rank} did not meet all {size} processes of this run at {place}: {first_line(failures[0])}",
        "start all of them within some minutes; MASTER_ADDR must be the first host's address, and its MASTER_PORT must be open",
    ) from failures[0]


def _connect() -> None:
    """Meet the other processes, then join them into torch's process group."""
    store, rank, size = next(rendezvous("env://", timeout=ARRIVAL))
    # The process group itself has more patience, so nobody may build it before all are there.
    store = dist.PrefixStore(_agreed_name(store, rank, size), store)  # type: ignore[attr-defined]
    store.set_timeout(PATIENCE)
    on_gpus = torch.cuda.is_available()
    backend = "cpu:gloo,cuda:nccl" if on_gpus else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    if on_gpus:
        # One timeout serves all backends of a group, so NCCL gets its own here.
        gpus = dist.group.WORLD._get_backend(torch.device("cuda"))  # type: ignore[union-attr]
        gpus._set_default_timeout(GPU_PATIENCE)


def _agreed_name(store: Any, rank: int, size: int) -> str:
    """A name that the processes of this start have and no other start has. Returns when all are there, or fails after `ARRIVAL`.

    After a restart, torchrun's agents serve the same store again. The addresses of processes that have died are still in it, and
    a process group would wait for those. Restarts cannot be counted, because agents of two machines may count differently. So
    each process leaves a word of its own, the first one proposes a name for a list of words, and a process agrees if its own word
    is in the list.
    """
    word, deadline, proposed = uuid.uuid4().hex, time.monotonic() + ARRIVAL.total_seconds(), b""
    store.set(f"segctl/word/{rank}", word)
    keys = [f"segctl/word/{other}" for other in range(size)]
    store.wait(keys if rank == 0 else ["segctl/proposal"], ARRIVAL)
    while time.monotonic() < deadline:
        if rank == 0:
            words = b" ".join(store.multi_get(keys))
            if not proposed.endswith(words):
                proposed = uuid.uuid4().hex.encode() + b" " + words
                store.set("segctl/proposal", proposed.decode())
        proposal = store.get("segctl/proposal").decode()
        name, *words_of_all = proposal.split()
        if words_of_all[rank : rank + 1] == [word]:
            store.set(f"segctl/{name}/{rank}", "agreed")
            agreed = [f"segctl/{name}/{other}" for other in range(size)]
            if rank == 0 and store.check(agreed):
                store.set(f"segctl/{name}", "begin")
            if store.check([f"segctl/{name}"]):
                return f"segctl/{name}"
        time.sleep(AGAIN_S)
    raise RuntimeError("some of them have not started")


@contextmanager
def joined_world(note: Callable[[str], None] = lambda text: None) -> Iterator[World]:
    """`join_world` as a context, which closes the connections at its end. A lost process becomes a PeerError."""
    world = join_world(note)
    try:
        with world.losing_peers():
            yield world
    finally:
        leave_world()


def leave_world() -> None:
    """Close the connections that `join_world` opened."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def end_process(code: int) -> NoReturn:
    """End this process with what it has registered for its end, but without taking the interpreter down.

    gloo's background threads may still drop a reference to a Python object, for which they wait for the interpreter. A thread
    that waits while the interpreter is taken down is ended by it inside C++ code, which then ends the process with SIGABRT.
    """
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # a closed pipe, a closed stream, no stream
            stream.flush()
    os._exit(code)


def under_launcher() -> bool:
    """Whether a launcher started this process as one of several."""
    return int(os.environ.get("WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_TASKS", "1"))) > 1


def restarts() -> tuple[int, int]:
    """How often torchrun has started this machine's processes again, and how often it may; 0 without torchrun."""
    had, allowed = (int(os.environ.get(f"TORCHELASTIC_{name}", "0")) for name in ("RESTART_COUNT", "MAX_RESTARTS"))
    return had, allowed


def adopt_slurm(environment: MutableMapping[str, str]) -> None:
    """Set the variables of torch's launcher from srun's. A batch script itself has no step variables, so nothing is set in it."""
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
        # Two steps of a job, or two jobs on a machine, must not use the same port.
        "MASTER_PORT": str(20_000 + (job * 131 + step) % 20_000),
    }
    for name, value in values.items():
        environment.setdefault(name, value)


def _first_host(hosts: str) -> str:
    """The first host of a Slurm host list: `gpu[03-05,9],login` -> gpu03."""
    found = re.match(r"([^,\[]+)(?:\[(\d+))?", hosts)
    return "localhost" if found is None else found[1] + (found[2] or "")
