"""Files that are whole or absent, their formats, and the hashes that identify them."""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import secrets
import stat
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml

from segctl.errors import FULL, InputError, SegctlError, first_line, os_error_in_words

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from pydantic import BaseModel

FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

Record = TypeVar("Record", bound="BaseModel")

Progress = Callable[[int, int], None]
"""Called while long work runs, with how much is done and how much there is in all."""

FREE_SPACE = "free disk space or choose another folder, then run the same command again"


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
        with partial.open("r+b") as handle:  # Windows syncs no file that is open for reading only
            os.fsync(handle.fileno())  # a rename may reach the disk before the bytes do
        if mode is not None:
            partial.chmod(mode)  # not before, because a read-only file could not be filled
        partial.replace(path)
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError):
            raise _cannot_write(path, error) from error
        # torch's writer turns a full disk into a RuntimeError with one of these texts; any other RuntimeError is a bug.
        if not any(sign in str(error) for sign in ("write", "writing", "inline_container", "PytorchStreamWriter")):
            raise
        # torch calls a full disk "unexpected pos 30577792 vs 30577680", which does not help.
        raise SegctlError(f"cannot write '{path}': the disk is full or does not take more data", FREE_SPACE) from error
    finally:
        if partial is not None:
            with contextlib.suppress(OSError):  # an error here would replace the sentence above
                partial.unlink(missing_ok=True)


def move_whole(source: Path, path: Path) -> None:
    """Move a finished file of the same folder tree over `path`, whose mode stays. Raises what `write_whole` raises."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = _mode_to_keep(path)
        if mode is not None:
            source.chmod(mode)
        source.replace(path)
    except OSError as error:
        raise _cannot_write(path, error) from error


def require_plain(path: Path) -> None:
    """Raise InputError now, and not after long work, where `path` is a link, a folder or a device, which no file replaces."""
    _mode_to_keep(path)


def append_line(path: Path, line: str) -> None:
    """Append a line to a UTF-8 text file, such as a log. Raises SegctlError where the disk is full.

    A full disk can leave half of the line. Its reader must drop a last line that does not end.
    """
    try:
        with path.open("a", encoding="utf-8", newline="\n") as handle:
            handle.write(f"{line}\n")
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> SegctlError:
    """The sentence for an OSError, with the name of the file that was to be written: the system's own error may lack it."""
    found = os_error_in_words(error)
    hint = FREE_SPACE if error.errno in FULL else found.hint
    return type(found)(f"cannot write '{path}': {error.strerror or first_line(error)}", hint)


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


def without_infinities(value: Any) -> Any:
    """A JSON value whose infinite numbers and NaN are None: JSON has no word for them, and other programs refuse Python's."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case dict():
            return {key: without_infinities(item) for key, item in value.items()}
        case list() | tuple():
            return [without_infinities(item) for item in value]
        case _:
            return value


def read_json(path: Path, hint: str = "") -> Any:
    """Read JSON. Raises InputError with `hint` for a file that cannot be read or is not JSON."""
    return parse_json(read_plain_text(path, hint), f"'{path}'", hint)


def read_plain_text(path: Path, hint: str = "") -> str:
    """The text of a UTF-8 file. Raises InputError for a pipe or a device, which may never end, and for other bytes."""
    try:
        if not path.is_file() and path.exists():
            raise InputError(f"cannot read '{path}': it is not a plain file", hint)
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"cannot read '{path}': byte {error.start} is not UTF-8", hint) from error
    except OSError as error:
        found = os_error_in_words(error)
        raise InputError(f"cannot read '{path}': {error.strerror or first_line(error)}", hint or found.hint) from error


def parse_json(text: str, where: str, hint: str = "") -> Any:
    """The value of a JSON text. Raises InputError that names `where` it stands: no JSON, nested too deep, a number too long."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"cannot read {where}: it is nested too deeply", hint) from error
    except ValueError as error:
        raise InputError(f"cannot read {where}: it is not valid JSON: {first_line(error)}", hint) from error


def read_record(path: Path, kind: type[Record], hint: str = "") -> Record:
    """A JSON file as a typed record. Raises InputError that names the file and the field which is not what segctl writes.

    kind: a pydantic model of the file's fields.  hint: what to do about a damaged file.
    """
    return parse_record(read_plain_text(path, hint), kind, f"'{path}'", hint)


def parse_record(text: str, kind: type[Record], where: str, hint: str = "") -> Record:
    """A JSON text as a typed record, in which lists become the tuples and objects the dataclasses that its fields want.

    Raises InputError as `read_record`.
    """
    tree = parse_json(text, where, hint)
    return _checked(tree, lambda: kind.model_validate_json(text, strict=True), where, hint)


def as_record(tree: Any, kind: type[Record], where: str, hint: str = "") -> Record:
    """A value that was read from a file as a typed record; `true` is not a number. Raises InputError as `read_record`."""
    return _checked(tree, lambda: kind.model_validate(tree, strict=True), where, hint)


def _checked(tree: Any, validate: Callable[[], Record], where: str, hint: str) -> Record:
    from pydantic import ValidationError  # not above: commands that read no record need not wait for pydantic

    if not isinstance(tree, dict):
        raise InputError(f"{where} is damaged: it holds {_kind_of(tree)}, wanted an object with fields", hint)
    try:
        return validate()
    except (ValidationError, RecursionError) as error:
        problem = _first_fault(error) if isinstance(error, ValidationError) else "it is nested too deeply"
        raise InputError(f"{where} is damaged: {problem}", hint) from error


def _first_fault(error: Any) -> str:
    """`seconds is 'x', wanted a valid number`."""
    fault = error.errors(include_url=False)[0]
    field = ".".join(map(str, fault["loc"]))
    if fault["type"] == "missing":
        return f"{field} is missing"
    wanted = fault["msg"].removeprefix("Input should be ")
    return f"{field} is {_shortly(fault['input'])}, wanted {wanted}"


def _shortly(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a number that is too long"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _kind_of(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def damage_of_zip(path: Path) -> str:
    """What is wrong with a zip archive, such as a file that torch wrote; empty if every member matches its CRC-32 checksum.

    Empty too for a file that is not a zip archive, and for one without checksums, which torch writes on request. torch itself
    does not check them: a flipped bit becomes another weight. Reads at about 1 GB/s.
    """
    if not zipfile.is_zipfile(path):
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            if not any(member.CRC for member in members):
                return ""
            broken = archive.testzip()
    except Exception as error:  # a changed header makes zipfile raise any of a dozen types
        return first_line(error)
    return f"'{broken}' in it does not match its checksum" if broken else ""


def archive_kind(path: Path) -> str:
    """`torchscript` or `export` for an archive in which torch put a program, by the names inside; else an empty string."""
    if not zipfile.is_zipfile(path):
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError):
        return ""
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        return "torchscript"
    exported = any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names)
    return "export" if exported else ""


def write_yaml(path: Path, value: Any) -> None:
    """Write YAML whole, keys in the order given."""
    write_text(path, yaml.safe_dump(value, sort_keys=False, allow_unicode=True))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file whole; None becomes an empty cell.

    A text that begins with = + - or @ gets an apostrophe before it: a spreadsheet would run it as a formula.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for row in (columns, *rows):
        writer.writerow([f"'{cell}" if isinstance(cell, str) and cell.startswith(FORMULA_STARTS) else cell for cell in row])
    write_text(path, text.getvalue())


def write_npz(path: Path, arrays: "Mapping[str, NDArray[Any]]", *, compressed: bool = False) -> None:
    """Write arrays of any shape by name, whole. compressed: by deflate; else the arrays are stored as they are."""
    import numpy as np

    def write(partial: Path) -> None:
        with partial.open("wb") as file:  # a path would get `.npz` added
            (np.savez_compressed if compressed else np.savez)(file, **arrays)  # type: ignore[arg-type]  # names taken for options

    write_whole(path, write)


def read_npz(path: Path, what: str, hint: str = "") -> "dict[str, NDArray[Any]]":
    """The arrays of an npz file by name; runs no code of the file. Raises InputError: it cannot read `what` from the file."""
    import numpy as np

    fault = f"cannot read {what} from '{path}'"
    if path.exists() and not path.is_file():
        raise InputError(f"{fault}: it is not a plain file", hint)  # a pipe or a device may never end
    try:
        with path.open("rb") as handle:
            found = np.load(handle, allow_pickle=False)
            if isinstance(found, np.lib.npyio.NpzFile):
                with found:
                    return dict(found)
    except OSError as error:
        raise InputError(f"{fault}: {error.strerror or error}", hint) from error
    except Exception as error:
        # Damage shows as whatever the parsers beneath meet first: BadZipFile, zlib.error, EOFError, ValueError, SyntaxError ...
        # Only NumPy's reader runs in this block, so no error here can be a fault of segctl's own.
        raise InputError(f"{fault}: {first_line(error)}", hint) from error
    raise InputError(f"{fault}: it is not an npz file", hint)


def real_path(path: Path) -> Path:
    """The absolute path without links. A loop of links stays as it is; `Path.resolve` raises RuntimeError for one."""
    return Path(os.path.realpath(path))


def file_sha256(path: Path) -> str:
    """The sha256 of a file's bytes, in hex. Raises InputError for a pipe or a device, which may never end."""
    if path.exists() and not path.is_file():
        raise InputError(f"cannot read '{path}': it is not a plain file")
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def content_key(about: Any) -> str:
    """A hash (64 hex digits) that is equal for equal JSON values, whatever the order of their keys.

    Files that a later command may reuse (shards, cached outputs, partial counts) carry the key of everything they depend on.
    """
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
