"""How many cores this process may use, and how many loader processes that makes."""

import os

MAX_WORKERS = 8


def core_count() -> int:
    """Cores that the system lets this process run on; these may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers(processes: int = 1) -> int:
    """Loader processes for each of `processes` training processes on this machine: its share of the cores, at most 8."""
    return max(1, min(MAX_WORKERS, core_count() // processes))


def loader_workers(wanted: int | None, device_type: str, processes: int = 1) -> int:
    """Loader processes for each training process: the number wanted, or `default_workers` for a GPU and 1 for a CPU.

    On a CPU the network needs the other cores.  device_type: torch's name, "cpu" or "cuda".
    """
    if wanted is not None:
        return wanted
    return default_workers(processes) if device_type == "cuda" else 1
