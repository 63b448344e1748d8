"""Downloads that are resumed, retried, checked, and whole or absent.

A file is written to NAME.part and renamed once its length, its first bytes and its checksum are right. A second attempt resumes
where the first stopped; if the server sends the file from its start instead, the part starts over. A web page is never saved as
an archive. If one URL fails, the next is tried.
"""

import hashlib
import shutil
import time
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import requests

from segctl.data.download.catalog import RemoteFile
from segctl.data.files.lock import locked, made_folder
from segctl.errors import SegctlError

TransferProgress = Callable[[str, int, int], None]
"""Called with (file name, bytes received, bytes in all or 0 if unknown)."""

PIECE_BYTES = 2**16
"""How much is received and written at a time; a broken connection loses at most this much."""
SPARE_BYTES = 2**28
"""How much must stay free on the disk."""
MAGIC = {"zip": (0, b"PK"), "tgz": (0, b"\x1f\x8b"), "tar": (257, b"ustar")}
MOST_DIGITS = 18
"""A length in bytes has at most this many digits."""
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Status codes that mean "later"."""


@dataclass(frozen=True)
class Patience:
    """How long to wait, in seconds, and how often to try again. Old hosts are slow to respond.

    retries: without coming further than ever before.  requests: for one URL in all, however far each comes.
    """

    connect_s: float = 60
    stall_s: float = 60
    retries: int = 4
    back_off_s: float = 0.5
    requests: int = 200


class _RefusedError(Exception):
    """This URL will not give the file; trying again does not help."""


class _InterruptedError(Exception):
    """The transfer broke off; trying again may help."""


@dataclass(frozen=True)
class Transfer:
    """What all tries at one file share. `renew` logs in again; None for hosts without a login."""

    session: requests.Session
    progress: TransferProgress
    patience: Patience
    renew: Callable[[], None] | None = None


def download(files: Sequence[RemoteFile], folder: Path, transfer: Transfer) -> list[Path]:
    """Download the files that are not in `folder` yet. Returns the paths of all.

    Raises SegctlError if a file cannot be downloaded or the disk is too small.
    """
    with made_folder(folder):
        missing = [file for file in files if not _is_here(file, folder)]
        _check_room(missing, folder)
        for file in missing:
            with locked(folder / f".{file.name}.lock", f"downloading '{file.name}'"):
                _fetch(file, folder / file.name, transfer)
    return [folder / file.name for file in files]


def new_session() -> requests.Session:
    """A session that names segctl as its client and asks for uncompressed transfers."""
    session = requests.Session()
    session.headers.update({"User-Agent": "segctl", "Accept-Encoding": "identity"})
    return session


def _is_here(file: RemoteFile, folder: Path) -> bool:
    """Whether a file was downloaded before and is still undamaged; a damaged one is removed, so that it is fetched again.

    The file was checked before it got its final name, but it may have been there for months.
    """
    path = folder / file.name
    if not path.is_file():
        return False
    if _problem(file, path):
        path.unlink()
        return False
    return True


def _check_room(files: Sequence[RemoteFile], folder: Path) -> None:
    needed = sum((file.byte_count or 0) - _length(_part(folder / file.name)) for file in files if file.byte_count)
    free = shutil.disk_usage(folder).free
    if files and needed + SPARE_BYTES > free:
        names = ", ".join(file.name for file in files)
        raise SegctlError(
            f"downloading {names} needs {needed / 1e9:.1f} GB in '{folder}', but {free / 1e9:.1f} GB are free",
            "free disk space, or give another folder with --data-root",
        )


def _fetch(file: RemoteFile, path: Path, transfer: Transfer) -> None:
    reasons = []
    for url in file.urls:
        try:
            _fetch_from(url, file, path, transfer)
            return
        except _RefusedError as error:
            reasons.append(f"{_host(url)}: {error}")
        except OSError as error:
            raise SegctlError(
                f"cannot write '{_part(path)}': {error.strerror or error}",
                "free disk space, then run the same command again to resume",
            ) from error
    raise SegctlError(
        f"'{file.name}' cannot be downloaded ({'; '.join(reasons)})",
        "run the same command again later to resume, or get the file by other means and give it with --source",
    )


def _fetch_from(url: str, file: RemoteFile, path: Path, transfer: Transfer) -> None:
    """All tries at one URL. A file that is wrong after it was resumed is fetched once more from its start."""
    resumed = _length(_part(path)) > 0
    _receive_all(url, file, path, transfer)
    problem = _problem(file, _part(path))
    if problem and resumed:
        _part(path).unlink()
        _receive_all(url, file, path, transfer)
        problem = _problem(file, _part(path))
    if problem:
        _part(path).unlink()
        raise _RefusedError(problem)
    _part(path).replace(path)


def _receive_all(url: str, file: RemoteFile, path: Path, transfer: Transfer) -> None:
    """Receive until the file ends. After an interruption try again, after a shorter wait if the last try came further.

    A try counts as a gain only if the part became longer than it ever was: a server that breaks off and then makes the part start
    over gives bytes every time, and would be asked for ever.
    """
    tries, patience, renewed = 0, transfer.patience, False
    longest = _length(_part(path))
    for _ in range(patience.requests):
        try:
            _receive(url, file, path, transfer)
            return
        except _LoginNeededError as error:
            if transfer.renew is None or renewed:
                raise _RefusedError(str(error)) from error
            transfer.renew()
            renewed = True
        except (requests.RequestException, _InterruptedError) as error:
            length = _length(_part(path))
            gained, longest = length > longest, max(length, longest)
            tries, renewed = (0 if gained else tries + 1), renewed and not gained
            if tries > patience.retries:
                raise _RefusedError(f"{_words(error)}, {tries} times") from error
            time.sleep(patience.back_off_s * 2 ** min(tries, 6))
    raise _RefusedError(f"the file is not complete after {patience.requests} requests")


class _LoginNeededError(Exception):
    """The server sent a page instead of the file: the session may have ended."""


def _receive(url: str, file: RemoteFile, path: Path, transfer: Transfer) -> None:
    """One request: append the response to the part, or start the part over if the server starts over."""
    part, have = _part(path), _length(_part(path))
    headers = {"Range": f"bytes={have}-"} if have else {}
    patience = transfer.patience
    with transfer.session.get(url, headers=headers, stream=True, timeout=(patience.connect_s, patience.stall_s)) as answer:
        if answer.status_code == 416:  # the server has nothing beyond the part: the part is whole, or of another file
            if _problem(file, part):
                part.unlink()
                raise _InterruptedError("the server has fewer bytes than are here")
            return
        _check_status(answer)
        start = _start(answer)
        if start not in (0, have):
            part.unlink()
            raise _InterruptedError("the server continued at another place")
        total = _total(answer, start)
        if file.byte_count is not None and total not in (None, file.byte_count):
            raise _RefusedError(f"it has {total} bytes, wanted {file.byte_count}")
        _check_room([replace(file, byte_count=total)] if total else [], path.parent)
        _save(answer, file, part, start, transfer, total or file.byte_count or 0)
    if total is not None and _length(part) != total:
        raise _InterruptedError("the connection ended early")


def _check_status(answer: requests.Response) -> None:
    code = answer.status_code
    if code in _PASSING:
        raise _InterruptedError(f"the server responds with {code}")
    if code in (301, 302, 303, 307, 308, 401) or (code < 300 and "html" in answer.headers.get("Content-Type", "").lower()):
        raise _LoginNeededError("the server sends a page, not the file")
    if code not in (200, 206):
        raise _RefusedError(f"the server responds with {code}")


def _save(answer: requests.Response, file: RemoteFile, part: Path, start: int, transfer: Transfer, total: int) -> None:
    """Write the response to the part. The first bytes are checked before any is written."""
    done = start
    handle = None
    try:
        for piece in answer.iter_content(PIECE_BYTES):
            if handle is None:
                if start == 0:
                    _check_magic(file, piece)
                handle = part.open("ab" if start else "wb")
            handle.write(piece)
            done += len(piece)
            transfer.progress(file.name, done, total)
    finally:
        if handle is not None:
            handle.close()
    if handle is None:
        raise _InterruptedError("the server sends nothing")


def _check_magic(file: RemoteFile, piece: bytes) -> None:
    offset, magic = MAGIC[file.kind]
    if piece.lstrip()[:1] == b"<":
        raise _LoginNeededError("the server sends a page, not the file")
    if len(piece) >= offset + len(magic) and piece[offset : offset + len(magic)] != magic:
        raise _RefusedError(f"what the server sends is not a {file.kind}")


def _start(answer: requests.Response) -> int:
    """The position in the file at which the response starts; -1 if a partial response does not tell."""
    if answer.status_code != 206:
        return 0
    first = _number(answer.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0])
    return -1 if first is None else first


def _total(answer: requests.Response, start: int) -> int | None:
    length = _number(answer.headers.get("Content-Length", ""))
    return None if length is None else start + length


def _number(text: str) -> int | None:
    """A header's number; None for any other text, such as '²', which is a digit to Python, or for a number of 5,000 digits."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS else None


def _problem(file: RemoteFile, part: Path) -> str:
    """What is wrong with a received file; empty if nothing is."""
    length = _length(part)
    if file.byte_count is not None and length != file.byte_count:
        return f"it has {length} bytes, wanted {file.byte_count}"
    if file.checksum is None:
        return _broken_member(part) if file.kind == "zip" else ""
    algorithm, wanted = file.checksum
    with part.open("rb") as handle:
        got = hashlib.file_digest(handle, algorithm).hexdigest()
    return "" if got == wanted else f"its {algorithm} is {got}, wanted {wanted}"


def _broken_member(part: Path) -> str:
    try:
        with zipfile.ZipFile(part) as archive:
            broken = archive.testzip()
    # Python raises NotImplementedError for a compression method that it lacks.
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        return f"it is not a complete zip ({error})"
    return f"its member '{broken}' is damaged" if broken else ""


def _words(error: Exception) -> str:
    """What happened, in words, without the objects that requests prints."""
    match error:
        case requests.ConnectTimeout():
            return "no answer in time"
        case requests.Timeout() | requests.ConnectionError() if "timed out" in str(error):
            return "it stalled"
        case requests.exceptions.SSLError():
            return "its certificate is not trusted"
        case requests.exceptions.ChunkedEncodingError() | requests.exceptions.ContentDecodingError():
            return "the connection ended early"
        case requests.ConnectionError():
            return "cannot be reached"
        case requests.RequestException():
            return type(error).__name__
        case _:
            return str(error)


def _host(url: str) -> str:
    return url.partition("//")[2].partition("/")[0]


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def plain_transfer(progress: TransferProgress = lambda name, done, total: None) -> Transfer:
    """A transfer from hosts that need no account."""
    return Transfer(new_session(), progress, Patience())


def downloads_folder(data_root: Path) -> Path:
    """The folder in which downloads stay, to be used again."""
    return data_root / "downloads"
