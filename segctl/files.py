"""Files that are whole or absent, their formats, and the hashes that identify them."""

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from segctl.errors import InputError, SegctlError, first_line

Progress = Callable[[int, int], None]
"""Called while long work runs, with how much is done and how much there is in all."""


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then rename it into place.

    Raises SegctlError where the disk is full or the folder cannot be written; `path` is then what it was before.
    """
    partial = path.with_name(f".{path.name}.part{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())  # a rename may reach the disk before the bytes do
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        # torch and zip writers turn a full disk into a RuntimeError; any other RuntimeError is a bug.
        if isinstance(error, RuntimeError) and "write" not in str(error):
            raise
        reason = error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)
        raise SegctlError(
            f"cannot write '{path}': {reason}", "free disk space or choose another folder, then run the same command again"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def sweep_partial(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder."""
    for partial in folder.glob(".*.part*"):
        partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole."""

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8", newline="\n")

    write_whole(path, write)


def write_json(path: Path, value: Any) -> None:
    """Write JSON whole."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. Raises InputError for a file that cannot be read or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read '{path}': {error}") from error


def write_yaml(path: Path, value: Any) -> None:
    """Write YAML whole, keys in the order given."""
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file whole; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def content_key(about: Any) -> str:
    """A hash (64 hex digits) that is equal for equal JSON values, whatever the order of their keys.

    Files that a later command may reuse (shards, cached outputs, partial counts) carry the key of everything they depend on.
    """
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
