"""Processes that segctl starts end when it ends, even by SIGKILL, so that none trains on alone.

Imports no torch, because the command line calls it before anything else.
"""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO

VARIABLE = "SEGCTL_PARENT"
"""The variable in which a process passes its own number to the processes that it starts."""
_PR_SET_PDEATHSIG = 1


def parent_variable() -> dict[str, str]:
    """What to add to the environment of a process that is to end with this one."""
    return {VARIABLE: str(os.getpid())}


def start_segctl(
    command: Sequence[str], environment: Mapping[str, str], stderr: IO[bytes] | None = None
) -> "subprocess.Popen[bytes]":
    """Start `segctl COMMAND` in a process of its own that ends with the calling thread; its results on stdout are dropped.

    environment: what it has beside the variables of this process.  stderr: where its notes go, by default to this one's.
    """
    return subprocess.Popen(
        [sys.executable, "-m", "segctl", *command],
        stdout=subprocess.DEVNULL,
        stderr=stderr,
        env={**os.environ, **parent_variable(), **environment},
    )


def end_with_parent() -> None:
    """In a process that segctl started: ask the system for SIGTERM when the parent ends, so that a run saves its state and stops.

    Only Linux can do this. Elsewhere the lock of a run's folder keeps a second process from joining one that was left behind.
    """
    parent = os.environ.pop(VARIABLE, "")  # popped, because the parent of this process's own children is another
    if not parent or sys.platform != "linux":
        return
    with suppress(OSError, AttributeError):  # a C library without prctl
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if str(os.getppid()) != parent:  # the parent ended before the line above
        raise SystemExit(128 + signal.SIGTERM)
