"""How many cores this process may use."""

import os


def core_count() -> int:
    """Cores the system lets this process run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
