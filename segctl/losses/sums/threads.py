"""Work in pieces on one Python thread per core, each with single-threaded operations."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")

THREADS = 16
"""Largest number of threads; more would mostly wait for Python's lock."""


@contextmanager
def single_threaded() -> Iterator[None]:
    """Inside, torch's operations in this thread run on one core.

    Before and after `share_out`, small operations on all cores cost more than they save: each waits, spinning, for a core that
    another process may have, and torch's workers spin on beside Python's threads.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def share_out(work: Callable[[Iterator[T]], None], pieces: Sequence[T], device: torch.device) -> None:
    """Let as many threads as torch would use take pieces from one queue, so that a slow thread leaves its work to the others.

    Each runs torch's operations single-threaded and in the caller's inference mode, which every thread has for itself. The number
    of threads belongs to the thread in some versions of torch and to the process in others, so it is restored at the end.
    An exception of `work` is raised again.
    """
    queue, threads = deque(pieces), torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(pieces) == 1:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            work(_taken_from(queue))
        return
    inference = torch.is_inference_mode_enabled()

    def alone() -> None:
        torch.set_num_threads(1)
        with torch.inference_mode(inference), torch.no_grad():
            work(_taken_from(queue))

    number = min(threads, len(pieces), THREADS)
    try:
        with ThreadPoolExecutor(number) as pool:
            running = [pool.submit(alone) for _ in range(number)]
    finally:
        torch.set_num_threads(threads)
    for thread in running:
        thread.result()


def _taken_from(queue: deque[T]) -> Iterator[T]:
    """The pieces left in the queue, until it is empty; several threads may take from it at once."""
    while True:
        try:
            yield queue.popleft()
        except IndexError:
            return
