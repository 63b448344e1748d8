"""How many cores this process may use, how many loader processes that makes, and how threads wait."""

import os

MAX_WORKERS = 8
THREADS_VARIABLE = "OMP_NUM_THREADS"
"""The variable from which torch reads its number of threads when it is loaded."""


def core_count() -> int:
    """Cores that the system lets this process run on; these may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share_of_threads(processes: int) -> dict[str, str]:
    """What to add to the environment of each of `processes` processes that train at once: the number of threads that is its
    share of the cores. Empty for one process, and where that number is set already."""
    if processes == 1 or THREADS_VARIABLE in os.environ:
        return {}
    return {THREADS_VARIABLE: str(max(1, core_count() // processes))}


def waiting_threads() -> dict[str, str]:
    """What to add to the environment, before torch is loaded, for how its threads wait for each other; empty if a person chose.

    GNU's OpenMP lets them spin for 3 ms by default, which makes a step several times slower when another process, such as a
    loader worker, needs a core. Threads that sleep at once make the steps of small networks a fifth slower when none does. They
    spin for about a tenth of a millisecond here, which costs neither; LLVM's OpenMP reads the first variable only.
    """
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        return {}
    return {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}


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
