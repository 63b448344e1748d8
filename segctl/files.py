"""Files that are whole or absent, their formats, and the hashes that identify them."""

import contextlib
import csv
import hashlib
import io
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from segctl.errors import InputError, SegctlError, first_line, os_error_in_words

Progress = Callable[[int, int], None]
"""Called while long work runs, with how much is done and how much there is in all."""


def write_whole(path: Path, write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary neighbour of `path`, then rename it into place; the file's mode stays.

    Raises SegctlError where the disk is full, InputError where `path` is a link or a device, or cannot be written. Then `path` is
    what it was before.
    """
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = _mode_to_keep(path)
        partial = _new_partial(path, 0o666 if mode is None else 0o600)
        write(partial)
        if mode is not None:
            partial.chmod(mode)  # not before, because a read-only file could not be filled
        with partial.open("rb") as handle:
            os.fsync(handle.fileno())  # a rename may reach the disk before the bytes do
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        # torch and zip writers turn a full disk into a RuntimeError; any other RuntimeError is a bug.
        if isinstance(error, OSError):
            found = os_error_in_words(error)
            raise type(found)(f"cannot write '{path}': {error.strerror or first_line(error)}", found.hint) from error
        if "write" not in str(error):
            raise
        raise SegctlError(
            f"cannot write '{path}': {first_line(error)}",
            "free disk space or choose another folder, then run the same command again",
        ) from error
    finally:
        if partial is not None:
            with contextlib.suppress(OSError):  # an error here would replace the sentence above
                partial.unlink(missing_ok=True)


def _mode_to_keep(path: Path) -> int | None:
    """The permissions of the file that is replaced; None for a new file. Raises InputError for anything but a plain file.

    A rename would replace a device such as /dev/null, or a link, instead of writing to what it names.
    """
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    if stat.S_ISREG(status.st_mode):
        return stat.S_IMODE(status.st_mode)
    if stat.S_ISLNK(status.st_mode):
        raise InputError(f"cannot write '{path}': it is a link to '{os.readlink(path)}'", "give the path of a plain file")  # noqa: PTH115 - the text as it stands in the link
    what = "a folder" if stat.S_ISDIR(status.st_mode) else "a device, a pipe or a socket"
    raise InputError(f"cannot write '{path}': it is {what}", "give the path of a plain file")


def _new_partial(path: Path, mode: int) -> Path:
    """An empty new file beside `path`. Nobody can guess its name and lay a link there, and a file that exists is never opened."""
    partial = path.with_name(f".{path.name[:40]}.part{secrets.token_hex(8)}")
    os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    return partial


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
