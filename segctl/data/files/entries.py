"""One file of a dataset, wherever it lies: on the disk, in a zip, in a tar. A small value that travels to other processes."""

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from segctl.errors import InputError


class UnreadableError(ValueError):
    """A file inside an archive is not what the archive says."""


class File(Protocol):
    """A file to read."""

    @property
    def where(self) -> str:
        """Its path as people are shown it."""
        ...

    def read(self, limit: int | None = None) -> bytes:
        """All of it, or its first `limit` bytes. Raises OSError or UnreadableError."""
        ...


def read_lines(file: File) -> list[str]:
    """The lines of a text file that hold anything. Raises InputError where it is none."""
    try:
        return [line.strip() for line in file.read().decode("utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"'{file.where}' is no list of names: it cannot be read as text", "replace it") from error


@dataclass(frozen=True)
class PlainFile:
    """A file on the disk: the container is itself."""

    where: str
    container: Path

    def read(self, limit: int | None = None) -> bytes:
        with self.container.open("rb") as handle:
            return handle.read(-1 if limit is None else limit)


@dataclass(frozen=True)
class Stretch:
    """A run of bytes of another file: a member of a tar."""

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
    """A member of a zip; `start` is where its local header lies, `stored` and `size` are its lengths packed and unpacked."""

    where: str
    container: Path
    start: int
    stored: int
    size: int
    deflated: bool
    crc: int

    def read(self, limit: int | None = None) -> bytes:
        with self.container.open("rb") as handle:
            handle.seek(self.start)
            header = handle.read(30)
            if len(header) != 30 or not header.startswith(b"PK\3\4"):
                raise UnreadableError(f"'{self.container.name}' is damaged where it begins")
            handle.seek(sum(struct.unpack("<HH", header[26:30])), os.SEEK_CUR)
            packed = handle.read(self.stored if limit is None else min(self.stored, limit + 1024))  # packing adds little
        content = self._unpack(packed, self.size + 1 if limit is None else limit)
        if limit is None:
            self._check(content)
        return content

    def _unpack(self, packed: bytes, most: int) -> bytes:
        """At most that many bytes, whatever the member claims: a bomb goes off no further."""
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
