"""The members of a zip or tar archive, each looked at before it is believed."""

import atexit
import bz2
import gzip
import io
import lzma
import os
import re
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from segctl.data.files.entries import File, Stretch, ZipMember
from segctl.errors import InputError

Wanted = Callable[[str], bool]
"""Whether a file is to be listed, asked by its POSIX path."""

MEMBER_BYTES = 2**28
"""No picture or label of any dataset is as large as this."""
MAX_FILES = 2_000_000
MAX_RATIO, FREE_BYTES = 200, 2**26
"""A compressed tar may unpack to 200 times its own size and 64 MiB; datasets stay under 10 times."""
COPY_BYTES = 2**20
LEFT_BY_OTHERS = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})

_ODD = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def read_archive(path: Path, wanted: Wanted, notes: list[str]) -> dict[str, File]:
    """The wanted members of an archive by name, sorted; what was skipped is added to the notes."""
    members = _Members(path, wanted)
    with _damage(path), path.open("rb") as handle:
        head = handle.read(512)
        if head.startswith(b"PK"):
            _read_zip(members)
        elif head.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ")):
            _read_compressed_tar(members, head)
        elif head[257:262] == b"ustar":
            _read_tar(members)
        else:
            page = head.lstrip().lower().startswith((b"<!doctype", b"<html"))
            what = "an HTML page, perhaps of a log-in" if page else "neither a folder nor a zip or tar archive"
            raise InputError(f"the source '{path}' is {what}", "give a folder, or a zip or tar archive as it was published")
    notes.extend(members.notes())
    return dict(sorted(members.found.items()))


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    """What the standard library says of a broken archive, as one sentence."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"the archive '{path}' is cut short or damaged ({error})", "get it again") from error
    except OSError as error:
        raise InputError(f"the archive '{path}' cannot be read: {error.strerror or error}", "get it again") from error


class _Members:
    """What was found in one archive so far, and what was skipped."""

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self.path, self.wanted = path, wanted
        self.found: dict[str, File] = {}
        self.skipped: list[str] = []
        self._seen = 0

    def admit(self, raw: str, *, plain: bool) -> str | None:
        """The clean name of a member to take, None for one to leave. Raises InputError where the archive is no honest one."""
        self._seen += 1
        if self._seen > MAX_FILES:
            raise self.refusal(f"holds more than {MAX_FILES} members")
        name = self._clean(raw)
        if any(is_left_by_others(part) for part in name.split("/")):
            return None
        if not plain:
            self.skipped.append(name)
            return None
        if not self.wanted(name):
            return None
        if name in self.found:
            raise self.refusal(f"holds '{name}' twice")
        return name

    def _clean(self, raw: str) -> str:
        name = raw.replace("\\", "/")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
            raise self.refusal(f"holds {raw!r}, a name that leads outside the archive")
        if _ODD.search(name):
            raise self.refusal(f"holds {raw!r}, a name with characters that no file of a dataset has")
        return "/".join(parts)

    def check_size(self, name: str, size: int) -> None:
        if size > MEMBER_BYTES:
            raise self.refusal(f"declares {size} bytes for '{name}', more than any picture of a dataset takes")

    def where(self, name: str) -> str:
        return f"{name} in '{self.path.name}'"

    def refusal(self, problem: str) -> InputError:
        return InputError(f"the archive '{self.path}' {problem}", "get it again from its official place, or unpack it and look")

    def notes(self) -> list[str]:
        if not self.skipped:
            return []
        number = "1 link or device was" if len(self.skipped) == 1 else f"{len(self.skipped)} links and devices were"
        return [f"'{self.path.name}': {number} skipped, '{self.skipped[0]}' first; only plain files are read"]


def _read_zip(members: _Members) -> None:
    with zipfile.ZipFile(members.path) as archive:
        for info in archive.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            if info.is_dir():
                continue
            name = members.admit(info.filename, plain=kind in (0, stat.S_IFREG))
            if name is None:
                continue
            if info.flag_bits & 1:
                raise members.refusal(f"holds '{name}' encrypted")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise members.refusal(f"holds '{name}' packed by method {info.compress_type}, wanted 0 (stored) or 8 (deflated)")
            members.check_size(name, info.file_size)
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            place = (info.header_offset, info.compress_size, info.file_size)
            members.found[name] = ZipMember(members.where(name), members.path, *place, deflated, info.CRC)


def _read_tar(members: _Members) -> None:
    length = members.path.stat().st_size
    with tarfile.open(members.path, "r:") as archive:
        for info in archive:
            if info.isdir() or (name := members.admit(info.name, plain=_is_plain(info))) is None:
                continue
            members.check_size(name, info.size)
            if info.offset_data + info.size > length:
                raise members.refusal(f"is cut short inside '{name}'")
            members.found[name] = Stretch(members.where(name), members.path, info.offset_data, info.size)


def _is_plain(info: tarfile.TarInfo) -> bool:
    return info.isreg() and not info.issparse()


def _open_compressed(path: Path, head: bytes) -> bz2.BZ2File | lzma.LZMAFile | gzip.GzipFile:
    if head.startswith(b"BZh"):
        return bz2.open(path)
    if head.startswith(b"\xfd7zXZ"):
        return lzma.open(path)
    return gzip.GzipFile(path)


def _read_compressed_tar(members: _Members, head: bytes) -> None:
    with (
        _spool() as spool,
        _open_compressed(members.path, head) as unpacked,
        tarfile.open(fileobj=_Bounded(unpacked, members), mode="r|", bufsize=COPY_BYTES) as archive,
    ):
        for info in archive:
            if info.isdir() or (name := members.admit(info.name, plain=_is_plain(info))) is None:
                continue
            members.check_size(name, info.size)
            content = archive.extractfile(info)
            start, copied = spool.tell(), spool.write(content.read() if content else b"")
            if copied != info.size:
                raise members.refusal(f"is cut short inside '{name}'")
            members.found[name] = Stretch(members.where(name), Path(spool.name), start, copied)


class _Bounded(io.RawIOBase):
    """Reads on until more has come out than an honest archive of that size holds."""

    def __init__(self, inner: bz2.BZ2File | lzma.LZMAFile | gzip.GzipFile, members: _Members) -> None:
        self._inner, self._members = inner, members
        self._left = MAX_RATIO * members.path.stat().st_size + FREE_BYTES

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._inner.read(size)
        self._left -= len(content)
        if self._left < 0:
            raise self._members.refusal(f"unpacks to more than {MAX_RATIO} times its size")
        return content


@contextmanager
def _spool() -> Iterator[IO[bytes]]:
    """A temporary file that outlives this block and goes when the process that made it ends, or at once on a failure."""
    handle = tempfile.NamedTemporaryFile(prefix="segctl-", suffix=".spool", delete=False)  # noqa: SIM115 - closed below
    path, owner = Path(handle.name), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            path.unlink(missing_ok=True)

    atexit.register(remove)
    try:
        with handle:
            yield handle
    except BaseException:
        remove()
        raise


def is_left_by_others(name: str) -> bool:
    """Whether a file or folder of that name was left by the system or an editor and is no part of a dataset."""
    return name.startswith(".") or name in LEFT_BY_OTHERS
