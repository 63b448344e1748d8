"""Processes that write a dataset's shards: they report samples, stop together, and do not outlive the main process."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from typing import Any, TypeVar

from segctl.data.files.lock import KeptLock
from segctl.errors import SegctlError

_Job = TypeVar("_Job")
_Made = TypeVar("_Made")

_POLL_S = 0.1
"""How often progress is reported while processes work."""


def in_processes(
    make: Callable[[_Job, int, Callable[[], None]], _Made], job: _Job, count: int, workers: int, report: Callable[[int], None]
) -> list[_Made]:
    """`make(job, index, tick)` for each index below `count`, in fresh processes, because this one may hold threads, which a fork
    would break.

    make: a function of a module; it calls `tick` once a sample.  report: gets how often all processes have called `tick`.
    Raises SegctlError if a process dies, and what `make` raises; then the others drop their unfinished shards.
    """
    context = multiprocessing.get_context("spawn")
    counter: Synchronized[int] = context.Value("i", 0)
    stop = context.Event()
    # The workers keep the lock of this process: until the last of them has ended, no other may prepare the dataset.
    pool = ProcessPoolExecutor(workers, context, _enter_worker, (_Worker(make, job, counter, stop), KeptLock()))
    try:
        futures = [pool.submit(_make_in_worker, index) for index in range(count)]
        waiting = set(futures)
        while waiting:
            finished, waiting = wait(waiting, _POLL_S, FIRST_EXCEPTION)
            for future in finished:
                future.result()
            report(counter.value)
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise SegctlError("a converting process died", "try again with --workers 1; the machine may be out of memory") from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


class _StopError(Exception):
    """The main process has given up, so a worker drops its unfinished shard."""


@dataclass
class _Worker:
    make: Callable[[Any, int, Callable[[], None]], Any]
    job: Any
    counter: "Synchronized[int]"
    stop: Event

    def tick(self) -> None:
        if self.stop.is_set():
            raise _StopError
        with self.counter.get_lock():
            self.counter.value += 1


_worker: _Worker | None = None


def _enter_worker(worker: _Worker, _: KeptLock) -> None:
    """The main process handles Ctrl-C; a worker ignores it, and must not outlive the main process by much."""
    global _worker
    _worker = worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make_in_worker(index: int) -> Any:
    if _worker is None:
        raise RuntimeError("_make_in_worker runs only where _enter_worker has run")
    return _worker.make(_worker.job, index, _worker.tick)
