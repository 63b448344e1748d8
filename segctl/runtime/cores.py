"""How many cores this process may use."""

import os

MAX_WORKERS = 8


def core_count() -> int:
    """Cores the system lets this process run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(processes: int = 1) -> int:
    """Loader processes for each of `processes` training processes on this machine: a share of the cores, at most 8."""
    return max(1, min(MAX_WORKERS, core_count() // processes))
