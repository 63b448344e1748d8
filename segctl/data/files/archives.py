"""Folders, zip and tar archives as one read-only list of files: nothing is unpacked to the disk.

Chosen: every file is a small value that knows its container and its place there and opens it for each read, instead of shared
archive handles, because such values travel to other processes and need no lock. A zip or tar is indexed once. A compressed tar
cannot be read from the middle, so its wanted files (SBD's labels, some tens of MB of a 1.4 GB archive) are copied, in one pass
and in order, to a temporary file that is removed when the process ends.

No member is ever written under its own name. What no honest archive holds is refused: names that lead outside, doubled names,
encrypted members, sizes that are lies. What a re-packed one may hold is skipped: links and devices with a sentence, the files
that other systems leave (`__MACOSX`, `._*`, `.DS_Store`) without one.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from segctl.data.files.entries import File, PlainFile
from segctl.data.files.members import MAX_FILES, Wanted, is_left_by_others, read_archive
from segctl.errors import InputError

MAX_DEPTH = 3
"""How deep below what was given a dataset's own folders may lie."""


@dataclass(frozen=True)
class Files:
    """The files of everything that was given, by POSIX path; `given` is how people are shown it."""

    given: str
    names: str
    """The same without paths of this machine."""
    members: dict[str, File]
    notes: tuple[str, ...] = ()

    @cached_property
    def folders(self) -> set[str]:
        return {parent.as_posix() for parent in {PurePosixPath(name).parent for name in self.members} for parent in _up(parent)}

    def folder(self, *markers: str) -> str | None:
        """The shallowest folder that holds one of the `markers` (themselves folders, such as "leftImg8bit"), "" for the top.

        None where there is none. Raises InputError where two lie equally deep.
        """
        found = {_cut(folder, marker) for folder in self.folders for marker in markers if _ends_in(folder, marker)}
        at = sorted((folder for folder in found if _depth(folder) <= MAX_DEPTH), key=lambda folder: (_depth(folder), folder))
        if len(at) > 1 and _depth(at[0]) == _depth(at[1]):
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


def _up(folder: PurePosixPath) -> Iterator[PurePosixPath]:
    yield folder
    yield from folder.parents


def _ends_in(folder: str, marker: str) -> bool:
    return folder == marker or folder.endswith(f"/{marker}")


def _cut(folder: str, marker: str) -> str:
    return folder[: -len(marker)].rstrip("/")


def _depth(folder: str) -> int:
    return folder.count("/") + 1 if folder else 0


def open_files(paths: Sequence[Path], wanted: Wanted, own_names: Sequence[str] = ()) -> Files:
    """List the `wanted` files (asked by POSIX path) of all that was given.

    A folder that is itself called one of `own_names` keeps that name as its first path part: `--source …/gtFine` is as good as
    the folder above it. Raises InputError for what does not exist, is no archive, or is no honest one.
    """
    given = " and ".join(f"'{path}'" for path in paths)
    members: dict[str, File] = {}
    notes: list[str] = []
    for path in paths:
        own = path.resolve().name
        start = f"{own}/" if own in own_names and path.is_dir() and not (path / own).is_dir() else ""
        for name, file in _open(path, wanted, start, notes).items():
            if "/" in name and name in members:
                raise InputError(f"'{name}' is in more than one of {given}", "give each file once")
            members.setdefault(name, file)
    names = " and ".join(f"{'folder' if path.is_dir() else 'archive'} '{path.resolve().name}'" for path in paths)
    return Files(given, names, members, tuple(notes))


def _open(path: Path, wanted: Wanted, start: str, notes: list[str]) -> dict[str, File]:
    if not path.exists():
        raise InputError(f"the source '{path}' does not exist", "give a folder, or a zip or tar archive")
    if path.is_dir():
        return _walk(path, wanted, start)
    return read_archive(path, wanted, notes)


def _walk(top: Path, wanted: Wanted, start: str) -> dict[str, File]:
    """The files of a folder. Links are followed, since people link datasets into place, but never in a circle."""
    members: dict[str, File] = {}
    seen: set[tuple[int, int]] = set()
    for folder, inner, names in os.walk(top, followlinks=True):
        status = os.stat(folder)  # noqa: PTH116 - a Path per folder would only be thrown away
        if (status.st_dev, status.st_ino) in seen:
            inner.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        inner[:] = sorted(name for name in inner if not is_left_by_others(name))
        within = start + Path(folder).relative_to(top).as_posix().removeprefix(".")
        for name in sorted(names):
            relative = f"{within.rstrip('/')}/{name}".lstrip("/")
            if not is_left_by_others(name) and wanted(relative):
                members[relative] = PlainFile(relative, Path(folder, name))
        if len(members) > MAX_FILES:
            raise InputError(f"'{top}' holds more than {MAX_FILES} files", "give the dataset's own folder")
    return dict(sorted(members.items()))
