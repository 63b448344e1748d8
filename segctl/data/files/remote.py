"""Data roots behind a URL: files are read by range, through fsspec, and what was read is kept on the disk.

Such a root is a folder of this machine that names its URL in `root.json`. A file of the URL that is not there as a whole is a
sparse file of the same size beside a map of the blocks in it. Several processes may fill it at once, because they write the same
bytes, and a block is marked only after it was written.
"""

import io
import os
import re
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from segctl.commands import ROOT_FILE, url_of
from segctl.errors import InputError, SegctlError, first_line
from segctl.files import content_key, file_sha256, write_json, write_whole

T = TypeVar("T")

FETCH_BYTES = 1 << 18
"""Bytes that are fetched and marked together: a few tiles. One request for each tile would wait longer than it reads."""
CACHE_VARIABLE = "SEGCTL_CACHE"


def root_of(text: str) -> Path:
    """The data root that --data-root names: a folder as it is, or the folder that keeps what was read of a URL.

    Raises InputError for a URL without a host, or with a login, because URLs are stored and printed.
    """
    if not re.match(r"[a-z][a-z0-9+.-]+://", text):
        return Path(text)
    url = text.rstrip("/")
    _, _, rest = url.partition("://")
    host = rest.partition("/")[0]
    if not host:
        raise InputError(f"--data-root '{text}' has no host", "give for example https://host/data or s3://bucket/data")
    if "@" in host:
        raise InputError(
            "the URL of --data-root has a login in it, and segctl would store and print it",
            "leave it out; for s3:// the variables AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS's own files hold it",
        )
    base = os.environ.get(CACHE_VARIABLE) or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segctl"
    root = Path(base) / "remote" / content_key({"url": url})[:16]
    if url_of(root) != url:
        root.mkdir(parents=True, exist_ok=True)
        write_json(root / ROOT_FILE, {"url": url})
    return root


def require_local(data_root: Path, what: str) -> None:
    """Raise InputError for a URL. what: the work that needs a folder, such as "data prepare"."""
    if (url := url_of(data_root)) is not None:
        raise InputError(
            f"{what} needs a folder, and --data-root is '{url}', which segctl only reads", "give a folder by --data-root"
        )


def fetch_index(folder: Path, name: str) -> None:
    """Bring the file of this name in a dataset's folder up to date if its data root is a URL; no file if there is none there."""
    url = url_of(folder.parent)
    if url is None:
        return
    filesystem, place = _open(f"{url}/{folder.name}/{name}")
    try:
        content = _asked(url, lambda: filesystem.cat_file(place))
    except FileNotFoundError:
        (folder / name).unlink(missing_ok=True)
        return
    folder.mkdir(exist_ok=True)
    if not (folder / name).is_file() or (folder / name).read_bytes() != content:
        write_whole(folder / name, lambda partial: _write(partial, content))


def remote_file(path: Path, index: str) -> "RangedFile | None":
    """The remote file that a path in a dataset's folder, where no file is, stands for; None if the data root is not a URL.

    index: the name of the dataset's index. What was read with another index is not used, because the files may be others.
    """
    url = url_of(path.parent.parent)
    if url is None:
        return None
    key = file_sha256(path.parent / index)[:16]
    return RangedFile(f"{url}/{path.parent.name}/{path.name}", path.parent / "parts" / key / path.name)


class RangedFile(io.RawIOBase):
    """A file of a URL, to be read at any place; `path` is the sparse file that keeps what was read.

    Raises SegctlError if it cannot be reached, InputError if its server does not serve ranges, and FileNotFoundError.
    """

    def __init__(self, url: str, path: Path) -> None:
        self.url, self.path = url, path
        self._filesystem, self._place = _open(url)
        self._position = 0
        marks = path.with_name(f"{path.name}.blocks")
        if not path.is_file():
            size = _asked(url, lambda: self._filesystem.info(self._place)["size"])
            if size is None:
                raise _no_ranges(url)
            path.parent.mkdir(parents=True, exist_ok=True)
            _create(marks, -(-size // FETCH_BYTES))
            _create(path, size)  # last: where it is, the marks are too
        self.size = path.stat().st_size
        self._descriptors = [os.open(each, os.O_RDWR) for each in (path, marks)]
        for descriptor in self._descriptors:
            weakref.finalize(self, os.close, descriptor)

    def read_at(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset` on, fewer at the file's end; what is not on the disk is fetched first."""
        length = max(0, min(length, self.size - offset))
        if not length:
            return b""
        data, marks = self._descriptors
        first, last = offset // FETCH_BYTES, (offset + length - 1) // FETCH_BYTES
        there = os.pread(marks, last - first + 1, first)
        for run in re.finditer(b"\x00+", there):
            self._fetch(first + run.start(), first + run.end())
        return os.pread(data, length, offset)

    def forget(self, offset: int, length: int) -> None:
        """Fetch these bytes again when they are read next: the disk may have lost them."""
        first, last = offset // FETCH_BYTES, (offset + max(length, 1) - 1) // FETCH_BYTES
        os.pwrite(self._descriptors[1], bytes(last - first + 1), first)

    def whole(self) -> Path:
        """The file of this machine, once all of it has been read."""
        for offset in range(0, self.size, 64 * FETCH_BYTES):
            self.read_at(offset, 64 * FETCH_BYTES)
        return self.path

    def _fetch(self, first: int, end: int) -> None:
        """Fetch the blocks first to end, without the last one."""
        start, stop = first * FETCH_BYTES, min(end * FETCH_BYTES, self.size)
        content = _asked(self.url, lambda: self._filesystem.cat_file(self._place, start=start, end=stop))
        if len(content) != stop - start:
            raise _no_ranges(self.url)
        data, marks = self._descriptors
        os.pwrite(data, content, start)
        os.pwrite(marks, b"\x01" * (end - first), first)

    # What h5py asks of a file.
    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, target: Any) -> int:
        content = self.read_at(self._position, len(target))
        target[: len(content)] = content
        self._position += len(content)
        return len(content)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _create(path: Path, size: int) -> None:
    """Make a file of zeros, unless another process has made it meanwhile; it never replaces one."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        file.truncate(size)
    with suppress(FileExistsError):
        os.link(partial, path)
    partial.unlink()


def _open(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the place in it. Raises InputError where a package for it is missing."""
    try:
        import fsspec  # type: ignore[import-untyped]

        filesystem, place = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise InputError(
            f"a package to read '{url}' is missing: {first_line(error)}", "pip install 'segctl[remote]', for s3:// also s3fs"
        ) from error
    except ValueError as error:
        raise InputError(f"'{url}' cannot be read: {first_line(error)}", "give a folder, or https://HOST/data") from error
    return filesystem, place


def _asked(url: str, work: Callable[[], T]) -> T:
    """What `work()` gets from a server. Raises SegctlError for what a server or a network does; FileNotFoundError stays."""
    try:
        return work()
    except FileNotFoundError:
        raise
    except Exception as error:  # each of fsspec's file systems has errors of its own
        raise SegctlError(f"'{url}' cannot be read: {first_line(error)}", "check the address and the network") from error


def _no_ranges(url: str) -> InputError:
    return InputError(
        f"'{url}' cannot be read in parts: its server does not support HTTP range requests",
        "use a server that supports them, or copy the dataset into a folder",
    )
