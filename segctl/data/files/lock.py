"""One process at a time, in a folder that goes again if the work fails: `locked` and `made_folder`.

The lock is a file that exists while a process works, and names that process.

It is made by exclusive creation, which works on network file systems that lack locks. A killed process leaves the file behind;
a later process on the same machine notices that its owner is dead and removes it.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from segctl.errors import InputError, SegctlError


@dataclass(frozen=True)
class _Owner:
    """`started` tells a process from a later one with the same number; it is empty if the system does not say."""

    pid: int
    host: str
    started: str
    since: str


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
        with suppress(OSError):  # what a next attempt can use, such as whole shards, keeps its folders
            for path in made:
                path.rmdir()
        raise


@contextmanager
def locked(path: Path, work: str) -> Iterator[None]:
    """Hold the lock. Raises SegctlError that names `work` and the other process if a living process holds it."""
    mine = _Owner(os.getpid(), socket.gethostname(), _started(os.getpid()), datetime.now(UTC).isoformat(timespec="seconds"))
    while not _create(path, mine):
        other = _read(path)
        if other is not None and not _is_dead(other):
            raise SegctlError(
                f"{work} is under way in process {other.pid} on {other.host}, since {other.since}",
                f"wait for it to end, or stop it; if it is long gone, delete '{path}'",
            )
        _take_away(path, other)
    try:
        yield
    finally:
        if _read(path) == mine:
            path.unlink(missing_ok=True)


def _create(path: Path, owner: _Owner) -> bool:
    """Whether the lock was free. The file is written under another name and then linked, so it is never seen without its text."""
    draft = path.with_name(f"{path.name}.{owner.host}.{owner.pid}")
    try:
        draft.write_text(json.dumps(asdict(owner)), encoding="utf-8")
    except OSError as error:
        folder = path.parent
        raise InputError(f"cannot write to '{folder}': {error.strerror or error}", "give another folder") from error
    try:
        os.link(draft, path)
        return True
    except FileExistsError:
        return False
    except OSError:  # a file system without links
        return _create_plainly(path, draft.read_text(encoding="utf-8"))
    finally:
        draft.unlink(missing_ok=True)


def _create_plainly(path: Path, text: str) -> bool:
    try:
        with path.open("x", encoding="utf-8") as handle:
            handle.write(text)
    except FileExistsError:
        return False
    return True


def _read(path: Path) -> _Owner | None:
    """The owner of the lock; None if the file is gone or cannot be read."""
    try:
        return _Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _take_away(path: Path, dead: _Owner | None) -> None:
    """Remove the lock of a dead process. It is moved aside, read again, and put back if it is a new lock by now."""
    aside = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.stale")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside) != dead:
            aside.rename(path)
        aside.unlink(missing_ok=True)


def _is_dead(owner: _Owner) -> bool:
    """Whether the owner is known to be dead. Only this machine's processes can be asked; on Windows asking would kill them."""
    if owner.host != socket.gethostname() or os.name != "posix":
        return False
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return owner.started != _started(owner.pid)


def _started(pid: int) -> str:
    """When a process started, in the kernel's clock ticks; empty if the system does not say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
