"""One process at a time (`locked`), and a folder that is removed again if the work fails (`made_folder`).

The lock is a file that the system holds for the process that works, and that names this process.

The system releases the lock when its holder ends, however it ends, so a killed process blocks nobody: on this machine, on another
one that shares the disk, or in a container whose name has changed. A holder that ends normally removes the file. The next lock
takes over the file of a killed holder, or `remove_abandoned` removes it. Processes that write for the holder get a `KeptLock`, so
that the next holder never writes beside one that a kill left behind.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from multiprocessing import reduction
from pathlib import Path
from typing import Any

from filelock import lock_descriptor
from pydantic import BaseModel, Field

from segctl.errors import InputError, SegctlError
from segctl.files import read_record

_LETTING_GO_S, _POLL_S = 5.0, 0.05
"""Seconds to wait for a lock whose holder is no longer alive, and seconds between two tries."""


class _Owner(BaseModel):
    """The process that holds a lock. `started`, in seconds since 1970, tells it from a later process with the same number."""

    pid: int = Field(ge=0)
    host: str
    started: float
    since: str


_held: set[int] = set()
"""The descriptors of the locks that this process holds."""


def _close_in_child() -> None:
    """Close the parent's locks in a forked process, such as a loader worker: a lock is held until its last copy is closed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):  # Windows forks nothing
    os.register_at_fork(after_in_child=_close_in_child)


class KeptLock:
    """Sent to a process that this one spawns, it keeps the locks of this process until that process has ended too.

    A killed process may be gone some milliseconds before the processes that write for it. Windows needs a file's holder to be one
    process, so there a lock ends with the first.
    """

    def __reduce__(self) -> tuple[Callable[[list[Any]], "KeptLock"], tuple[list[Any]]]:
        return _keep, ([] if os.name == "nt" else [reduction.DupFd(descriptor) for descriptor in sorted(_held)],)


def _keep(descriptors: list[Any]) -> KeptLock:
    for descriptor in descriptors:
        descriptor.detach()  # open until the process ends
    return KeptLock()


@contextmanager
def made_folder(folder: Path, what: str = "") -> Iterator[None]:
    """Make a folder and its parents for some work. If the work fails, those that are new and hold nothing are removed.

    Raises InputError that calls the folder `what` if it cannot be made.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        name = f"{what} '{folder}'".lstrip()
        raise InputError(f"cannot write to {name}: {error.strerror or error}", "give another folder with --data-root") from error
    try:
        yield
    except BaseException:
        with suppress(OSError):  # a folder with something in it stays: the next attempt can use whole shards
            for path in made:
                path.rmdir()
        raise


@contextmanager
def locked(path: Path, work: str) -> Iterator[None]:
    """Hold the lock. Raises SegctlError that names `work` and the other process if another process holds it."""
    descriptor = _take(path, work)
    _held.add(descriptor)
    try:
        _sign(descriptor)
        yield
    finally:
        if descriptor in _held:  # a forked process that ends here no longer has the lock
            _held.discard(descriptor)
            # Windows removes no open file; elsewhere the file must go while it is locked, or a later holder's would go.
            if os.name != "nt":
                path.unlink(missing_ok=True)
            os.close(descriptor)
            if os.name == "nt":
                with suppress(OSError):  # another process has opened it meanwhile, and holds it
                    path.unlink(missing_ok=True)


def remove_abandoned(path: Path) -> None:
    """Remove the lock file of a killed process. The lock of a process that works stays."""
    if path.exists():
        with suppress(SegctlError), locked(path, ""):
            pass


def _take(path: Path, work: str) -> int:
    """The descriptor of the locked file."""
    latest = time.monotonic() + _LETTING_GO_S
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        except OSError as error:
            folder = path.parent
            raise InputError(f"cannot write to '{folder}': {error.strerror or error}", "give another folder") from error
        try:
            free = lock_descriptor(descriptor, blocking=False)
        except OSError:  # a file system without locks, as some clusters mount theirs: only the file's text can tell
            free = not _is_alive(_read(path))
        if free and _is_still(path, descriptor):
            return descriptor
        os.close(descriptor)
        if not free:
            # A holder that has just been killed may take a moment to let go: its processes end one after the other.
            if _is_alive(_read(path)) or time.monotonic() > latest:
                raise _busy(path, work)
            time.sleep(_POLL_S)


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the path names the file that was locked: its last holder may have removed it after it was opened."""
    try:
        there, mine = path.stat(), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def _busy(path: Path, work: str) -> SegctlError:
    owner = _read(path)
    who = "in another process" if owner is None else f"in process {owner.pid} on {owner.host}, since {owner.since}"
    return SegctlError(f"{work} is under way {who}", f"wait for it to end, or stop it; if it is long gone, delete '{path}'")


def _sign(descriptor: int) -> None:
    """Write into the file who holds it. Only messages use the text, so a full disk stops nothing."""
    mine = _Owner(
        pid=os.getpid(),
        host=socket.gethostname(),
        started=_started(os.getpid()) or 0.0,
        since=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.write(descriptor, json.dumps(mine.model_dump()).encode())


def _read(path: Path) -> _Owner | None:
    """Who holds the lock; None if the file does not say. Windows lets nobody read a locked file."""
    try:
        return read_record(path, _Owner)
    except InputError:
        return None


def _is_alive(owner: _Owner | None) -> bool:
    """Whether the owner may be at work. A process of another machine cannot be asked, so it may."""
    if owner is None:
        return False
    if owner.host != socket.gethostname():
        return True
    started = _started(owner.pid)
    return started is not None and abs(started - owner.started) < 1


def _started(pid: int) -> float | None:
    """When a process started, in seconds since 1970; None if there is no such process, and 0 where it is unknown."""
    try:
        import psutil  # not above: only a file system without locks needs it, and its import may fail
    except ImportError:
        return 0.0
    try:
        return float(psutil.Process(pid).create_time())
    except (psutil.Error, OverflowError):
        return None
