"""Folders, zip and tar archives as one read-only list of files; nothing is unpacked to the disk.

Every file is a small value that knows its container and its place in it, and opens the container for each read. Such values
travel to other processes and need no lock, which shared archive handles would. A zip or tar is indexed once. A compressed tar
cannot be read from the middle, so the wanted files (SBD's labels: some tens of MB of a 1.4 GB archive) are copied in one pass
to a temporary file, which is removed when the process ends.

No member is ever written under its own name. An archive is refused if it holds names that lead outside of it, a name twice,
encrypted members, or false sizes. Links and devices are skipped with a note; files that other systems leave
(`__MACOSX`, `._*`, `.DS_Store`) are skipped without one.

Names are compared in Unicode's composed form (NFC): a Mac writes `é` as two characters, other systems as one.
"""

import atexit
import bz2
import gzip
import io
import lzma
import os
import re
import stat
import struct
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from segctl.errors import FULL, InputError, SegctlError, first_line
from segctl.files import real_path

Wanted = Callable[[str], bool]
"""Whether to list a file, given its POSIX path."""

MAX_DEPTH = 3
"""How deep a dataset's own folders may lie below the given folder or archive."""
MEMBER_BYTES = 2**28
"""No picture or label of any dataset is as large as this."""
VOLUME_BYTES = 2**32
"""No scan of a patient is as large as this, packed or not."""
VOLUME_ENDINGS = (".nii", ".nii.gz")
MAX_FILES = 2_000_000
MAX_RATIO, FREE_BYTES = 200, 2**26
"""A compressed tar may unpack to 200 times its own size plus 64 MiB; datasets stay under 10 times."""
COPY_BYTES = 2**20
LEFT_BY_OTHERS = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})

_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""What no name may hold: control characters, and bytes that are not UTF-8, which Python reads as half surrogates."""


class UnreadableError(ValueError):
    """A file inside an archive is not what the archive says."""


class SpecialFileError(UnreadableError):
    """A path names a pipe, a socket, a device or a folder instead of a file."""


class File(Protocol):
    """One file, on the disk or in an archive."""

    @property
    def where(self) -> str:
        """Its path as messages show it."""
        ...

    def read(self, limit: int | None = None) -> bytes:
        """All bytes, or the first `limit`. Raises OSError or UnreadableError."""
        ...


_SPECIAL = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))


def require_regular(path: Path) -> None:
    """Raise SpecialFileError for a pipe, a socket, a device or a folder, also behind a link: reading it might never end.

    Raises OSError for a file that does not exist or whose folder may not be entered.
    """
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        what = next((words for test, words in _SPECIAL if test(mode)), "a device")
        raise SpecialFileError(f"it is {what}, not a file")


@dataclass(frozen=True)
class PlainFile:
    """A file on the disk."""

    where: str
    container: Path

    def read(self, limit: int | None = None) -> bytes:
        require_regular(self.container)
        with self.container.open("rb") as handle:
            return handle.read(-1 if limit is None else limit)


@dataclass(frozen=True)
class TarMember:
    """A member of a tar: `size` bytes of `container` from `start`."""

    where: str
    container: Path
    start: int
    size: int

    def read(self, limit: int | None = None) -> bytes:
        length = self.size if limit is None else min(limit, self.size)
        with self.container.open("rb") as handle:
            handle.seek(self.start)
            content = handle.read(length)
        if len(content) != length:
            raise UnreadableError(f"'{self.container.name}' is cut short")
        return content


@dataclass(frozen=True)
class ZipMember:
    """A member of a zip: `start` is the offset of its local header; the sizes are bytes compressed and uncompressed."""

    where: str
    container: Path
    start: int
    compressed_size: int
    size: int
    deflated: bool
    crc: int

    def read(self, limit: int | None = None) -> bytes:
        with self.container.open("rb") as handle:
            handle.seek(self.start)
            header = handle.read(30)
            if len(header) != 30 or not header.startswith(b"PK\3\4"):
                raise UnreadableError(f"its header in '{self.container.name}' is damaged")
            # The lengths of name and extra field may differ from those of the zip's directory, so the local header decides.
            handle.seek(sum(struct.unpack("<HH", header[26:30])), os.SEEK_CUR)
            # Deflate never grows its input by more than a few bytes a block: 1 KiB more is enough for `limit` bytes.
            packed = handle.read(self.compressed_size if limit is None else min(self.compressed_size, limit + 1024))
        # One byte more than declared shows that the declared size is false; a zip bomb is not unpacked any further.
        content = self._unpack(packed, self.size + 1 if limit is None else limit)
        if limit is None:
            self._check(content)
        return content

    def _unpack(self, packed: bytes, most: int) -> bytes:
        if not self.deflated:
            return packed[:most]
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, most)
        except zlib.error as error:
            raise UnreadableError(f"it is damaged inside '{self.container.name}'") from error

    def _check(self, content: bytes) -> None:
        if len(content) != self.size:
            more = "more" if len(content) > self.size else "less"
            raise UnreadableError(f"it holds {more} than the {self.size} bytes that '{self.container.name}' declares")
        if zlib.crc32(content) != self.crc:
            raise UnreadableError(f"it does not match its checksum in '{self.container.name}'")


def decode_text(content: bytes) -> str:
    """Text as people's programs write it: UTF-8, UTF-16 (Excel's "Unicode text") or Windows' cp1252.

    Raises UnreadableError for content that is not text, such as a picture.
    """
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings = ["utf-16"]
    elif content[1:2] == b"\0" or content[:1] == b"\0":
        encodings = ["utf-16-le" if content[1:2] == b"\0" else "utf-16-be"]
    else:
        encodings = ["utf-8-sig", "cp1252"]
    for encoding in encodings:
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if not re.search(r"[\x00-\x08\x0e-\x1f\x7f]", text):
            return text
    raise UnreadableError("it is not text")


def read_lines(file: File) -> list[str]:
    """The lines of a text file that are not blank. Raises InputError for a file that is not text."""
    try:
        text = unicodedata.normalize("NFC", decode_text(file.read()))
        return [line.strip() for line in text.splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        reason = str(error) if isinstance(error, SpecialFileError) else "it cannot be read as text"
        raise InputError(f"'{file.where}' is not a list of names: {reason}", "replace it") from error


@dataclass(frozen=True)
class Files:
    """All files of the given folders and archives by POSIX path; `given` names the folders and archives in messages."""

    given: str
    names: str
    """The same without paths of this machine."""
    members: dict[str, File]
    notes: tuple[str, ...] = ()

    @cached_property
    def folders(self) -> set[str]:
        parents = {PurePosixPath(name).parent for name in self.members}
        return {folder.as_posix() for parent in parents for folder in (parent, *parent.parents)}

    def folder(self, *markers: str) -> str | None:
        """The shallowest folder that holds one of the folders `markers` (such as "leftImg8bit"); "" is the top.

        None if there is none. Raises InputError if two lie equally deep.
        """
        found = {
            folder[: -len(marker)].rstrip("/")
            for folder in self.folders
            for marker in markers
            if folder == marker or folder.endswith(f"/{marker}")
        }

        def depth(folder: str) -> int:
            return folder.count("/") + 1 if folder else 0

        at = sorted((folder for folder in found if depth(folder) <= MAX_DEPTH), key=lambda folder: (depth(folder), folder))
        if len(at) > 1 and depth(at[0]) == depth(at[1]):
            first, second = (f"{folder}/".lstrip("/") + markers[0] for folder in at[:2])
            raise InputError(
                f"{self.given} holds '{markers[0]}' twice, as '{first}' and '{second}'",
                "give the folder of the one that is meant",
            )
        return at[0] if at else None

    def under(self, folder: str) -> dict[str, File]:
        """The files below a folder, by their path from there."""
        start = f"{folder}/" if folder else ""
        return {name.removeprefix(start): file for name, file in self.members.items() if name.startswith(start)}

    def find(self, folder: str, name: str) -> File | None:
        return self.members.get(f"{folder}/{name}" if folder else name)


def open_files(paths: Sequence[Path], wanted: Wanted, own_names: Sequence[str] = ()) -> Files:
    """List the `wanted` files of all given folders and archives.

    A folder that is itself called one of `own_names` keeps that name as the first part of its files' paths: `--source …/gtFine`
    works like the folder above it. Raises InputError for a path that does not exist, is not an archive, or is a damaged or
    dishonest archive.
    """
    given = " and ".join(f"'{path}'" for path in paths)
    members: dict[str, File] = {}
    notes: list[str] = []
    for path in paths:
        if not path.exists():
            raise InputError(f"the source '{path}' does not exist", "give a folder, or a zip or tar archive")
        own = real_path(path).name
        start = f"{own}/" if own in own_names and path.is_dir() and not (path / own).is_dir() else ""
        try:
            found = _walk(path, wanted, start) if path.is_dir() else _read_archive(path, wanted, notes)
        except UnreadableError as error:
            raise InputError(f"the source '{path}' cannot be read: {error}", "give a folder, or a zip or tar archive") from error
        for name, file in found.items():
            if "/" in name and name in members:
                raise InputError(f"'{name}' is in more than one of {given}", "give each file once")
            members.setdefault(name, file)
    names = " and ".join(f"{'folder' if path.is_dir() else 'archive'} '{real_path(path).name}'" for path in paths)
    return Files(given, names, members, tuple(notes))


def files_below(folder: Path, wanted: Wanted) -> list[Path]:
    """The paths of a folder's `wanted` files as the disk spells them, sorted; found and judged as `open_files` does it."""
    return sorted(file.container for file in _walk(folder, wanted, "").values() if isinstance(file, PlainFile))


def _walk(top: Path, wanted: Wanted, start: str) -> dict[str, File]:
    """The files of a folder. Links are followed, because people link datasets into place, but never in a circle."""
    members: dict[str, File] = {}
    seen: set[tuple[int, int]] = set()
    for folder, inner, names in os.walk(top, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116 - a Path per folder would only be thrown away
        if (status.st_dev, status.st_ino) in seen:
            inner.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        inner[:] = sorted(name for name in inner if not _is_left_by_others(name))
        within = start + Path(folder).relative_to(top).as_posix().removeprefix(".")
        for name in sorted(names):
            relative = f"{within.rstrip('/')}/{name}".lstrip("/")
            if _is_left_by_others(name) or not wanted(relative):
                continue
            require_sound_name(relative, f"'{top}'")
            relative = unicodedata.normalize("NFC", relative)
            if relative in members:
                raise InputError(
                    f"'{top}' holds '{relative}' twice, once with composed and once with decomposed accents",
                    "keep one of the two files",
                )
            members[relative] = PlainFile(relative, Path(folder, name))
        if len(members) > MAX_FILES:
            raise InputError(f"'{top}' holds more than {MAX_FILES} files", "give the dataset's own folder")
    return dict(sorted(members.items()))


def require_sound_name(name: str, where: str) -> None:
    """Raise InputError for a file name that is not UTF-8 or holds control characters; `where` says what holds the file.

    Such a name can stand in no JSON, CSV or terminal, so it is refused before any work.
    """
    if _ODD.search(name):
        problem = "is not UTF-8" if re.search("[\ud800-\udfff]", name) else "holds control characters"
        raise InputError(f"{where} holds a file whose name {problem}: {name!r}", "rename it, for example with `convmv` or `mv`")


def _is_left_by_others(name: str) -> bool:
    """Whether the system or an editor left a file or folder of that name, so that it does not belong to a dataset."""
    return name.startswith(".") or name in LEFT_BY_OTHERS


def _read_archive(path: Path, wanted: Wanted, notes: list[str]) -> dict[str, File]:
    """The wanted members of an archive by name, sorted; adds to `notes` what was skipped."""
    members = _Members(path, wanted)
    require_regular(path)
    with _worded_damage(path), path.open("rb") as handle:
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
def _worded_damage(path: Path) -> Iterator[None]:
    """Turn the standard library's errors about a broken archive into one sentence."""
    try:
        yield
    except (SegctlError, MemoryError):
        raise
    except OSError as error:
        if error.errno in FULL:
            # The archive is sound; its files did not fit into the temporary folder.
            raise SegctlError(
                f"no room for the files of '{path}' in '{tempfile.gettempdir()}'",
                "free disk space there, or name another folder with the variable TMPDIR",
            ) from error
        raise InputError(f"the archive '{path}' cannot be read: {error.strerror or error}", "get it again") from error
    except NotImplementedError as error:  # what Python raises for a compression method that it lacks
        raise InputError(
            f"the archive '{path}' needs a newer reader ({first_line(error)})", "pack it again as a plain zip"
        ) from error
    except Exception as error:  # zipfile and tarfile raise nearly anything for a damaged archive
        raise InputError(f"the archive '{path}' is cut short or damaged ({first_line(error)})", "get it again") from error


class _Members:
    """The members of one archive found so far, and the skipped ones. Each is judged before it is believed."""

    def __init__(self, path: Path, wanted: Wanted) -> None:
        self.path, self.wanted = path, wanted
        self.found: dict[str, File] = {}
        self.skipped: list[str] = []
        self._seen = 0

    def admit(self, raw: str, *, plain: bool) -> str | None:
        """The clean name of a member to list, None for one to leave out. Raises InputError for a dishonest archive."""
        self._seen += 1
        if self._seen > MAX_FILES:
            raise self.refusal(f"holds more than {MAX_FILES} members")
        name = self._clean(raw)
        if any(_is_left_by_others(part) for part in name.split("/")):
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
        name = unicodedata.normalize("NFC", raw.replace("\\", "/"))
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
            raise self.refusal(f"holds {raw!r}, a name that leads outside the archive")
        if _ODD.search(name):
            raise self.refusal(f"holds {raw!r}, a name with characters that no file of a dataset has")
        return "/".join(parts)

    def check_size(self, name: str, size: int) -> None:
        if size > (VOLUME_BYTES if name.endswith(VOLUME_ENDINGS) else MEMBER_BYTES):
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
            name = members.admit(_zip_name(info), plain=kind in (0, stat.S_IFREG))
            if name is None:
                continue
            if info.flag_bits & 0x2041:  # encrypted, strongly encrypted, with hidden headers
                raise members.refusal(f"holds '{name}' encrypted")
            if info.flag_bits & 0x20:
                raise members.refusal(f"holds '{name}' as a patch of another file")
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise members.refusal(f"holds '{name}' packed by method {info.compress_type}, wanted 0 (stored) or 8 (deflated)")
            members.check_size(name, info.file_size)
            deflated = info.compress_type == zipfile.ZIP_DEFLATED
            place = (info.header_offset, info.compress_size, info.file_size)
            members.found[name] = ZipMember(members.where(name), members.path, *place, deflated, info.CRC)


def _zip_name(info: zipfile.ZipInfo) -> str:
    """A member's name. A Mac writes UTF-8 without the flag that says so, and zipfile then takes it for the DOS code page."""
    if not info.flag_bits & 0x800:
        try:
            return info.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return info.filename


def _read_tar(members: _Members) -> None:
    length = members.path.stat().st_size
    with tarfile.open(members.path, "r:") as archive:
        for info in archive:
            if info.isdir() or (name := members.admit(info.name, plain=_is_plain(info))) is None:
                continue
            members.check_size(name, info.size)
            if info.offset_data + info.size > length:
                raise members.refusal(f"is cut short inside '{name}'")
            members.found[name] = TarMember(members.where(name), members.path, info.offset_data, info.size)


def _is_plain(info: tarfile.TarInfo) -> bool:
    return info.isreg() and not info.issparse()


def _read_compressed_tar(members: _Members, head: bytes) -> None:
    with (
        _temporary_file() as spool,
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
            members.found[name] = TarMember(members.where(name), Path(spool.name), start, copied)


def _open_compressed(path: Path, head: bytes) -> bz2.BZ2File | lzma.LZMAFile | gzip.GzipFile:
    if head.startswith(b"BZh"):
        return bz2.open(path)
    if head.startswith(b"\xfd7zXZ"):
        return lzma.open(path)
    return gzip.GzipFile(path)


class _Bounded(io.RawIOBase):
    """Reads until more has come out than an honest archive of that size can hold, then raises InputError."""

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
def _temporary_file() -> Iterator[IO[bytes]]:
    """A temporary file that outlives this block. It is removed when the process that made it ends, or at once on a failure."""
    handle = tempfile.NamedTemporaryFile(prefix="segctl-", suffix=".spool", delete=False)  # noqa: SIM115 - closed below
    path, owner = Path(handle.name), os.getpid()

    def remove() -> None:
        # A forked process runs this too when it ends, and must not take the file from its parent.
        if os.getpid() == owner:
            path.unlink(missing_ok=True)

    atexit.register(remove)
    try:
        with handle:
            yield handle
    except BaseException:
        remove()
        raise
