"""How long tests wait for other processes: long enough for a machine that is busy with something else."""

import time
from collections.abc import Callable

LIMIT = 240.0
"""Seconds."""


def wait_for(what: Callable[[], bool]) -> None:
    """Return as soon as `what` is true. Raises TimeoutError after `LIMIT`."""
    end = time.monotonic() + LIMIT
    while not what():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)
