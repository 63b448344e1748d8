"""A file that exists is whole."""

import os
from collections.abc import Callable
from pathlib import Path

from segctl.errors import SegctlError


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then rename it into place, so that a file that exists is whole.

    Raises SegctlError where the disk is full or the folder cannot be written; `path` is then what it was before.
    """
    partial = path.with_name(f".{path.name}.part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch and zip writers turn a full disk into a RuntimeError
        if isinstance(error, RuntimeError) and "write" not in str(error):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).splitlines()[0]
        raise SegctlError(
            f"cannot write '{path}': {reason}", "make room or choose another folder, then run the same again"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def sweep_partial(folder: Path) -> None:
    """Remove what a killed process left of files it was writing."""
    for partial in folder.glob(".*.part*"):
        partial.unlink(missing_ok=True)
