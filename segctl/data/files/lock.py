"""One process at a time: a file that exists while somebody works, and says who.

Made by exclusive creation, which network file systems have too, where they may lack locks. A process that was killed leaves the
file behind; on the same machine that is seen, and the file is taken away.
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
    """`started` tells a process from a later one of the same number, where the system tells; else it is empty."""

    pid: int
    host: str
    started: str
    since: str


@contextmanager
def locked(path: Path, work: str) -> Iterator[None]:
    """Hold the lock. Raises SegctlError, which names `work` and who does it, where another living process holds it."""
    mine = _Owner(os.getpid(), socket.gethostname(), _started(os.getpid()), datetime.now(UTC).isoformat(timespec="seconds"))
    while not _create(path, mine):
        other = _read(path)
        if other is not None and not _is_dead(other):
            raise SegctlError(
                f"{work} is under way in process {other.pid} on {other.host}, since {other.since}",
                f"wait for it to end, or stop it; where it is long gone, delete '{path}'",
            )
        _take_away(path, other)
    try:
        yield
    finally:
        if _read(path) == mine:
            path.unlink(missing_ok=True)


def _create(path: Path, owner: _Owner) -> bool:
    """Whether the lock was free. Its text is there as soon as it is: it is written under another name and then linked."""
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
    """Who holds the lock; None where the file is gone or cannot be read."""
    try:
        return _Owner(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _take_away(path: Path, dead: _Owner | None) -> None:
    """Remove a dead process's lock, and no other: it is moved aside first, looked at again, and put back if it is a new one."""
    aside = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.stale")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if _read(aside) != dead:
            aside.rename(path)
        aside.unlink(missing_ok=True)


def _is_dead(owner: _Owner) -> bool:
    """Only of this machine's processes can that be said, and only where asking does no harm."""
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
    """When a process started, in the kernel's own count; empty where the system does not tell."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
