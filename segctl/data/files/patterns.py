"""Patterns of paths, such as `train/*_mask.png`: which files they mean, and what two patterns have in common.

`*` and `?` stay within a name, `**` crosses folders, `[ab]` is one of the characters. The shell must not expand a pattern, so a
person quotes it.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segctl.data.files.archives import Files, Wanted, open_files
from segctl.errors import InputError

_MAGIC = re.compile(r"[*?\[]")
_INSTEAD = {
    ".parquet": "take the pictures out; Hugging Face's `load_dataset('parquet', …).save_to_disk(DIR)` writes what --images reads",
    ".arrow": "take the pictures out; Hugging Face's `load_dataset('arrow', …).save_to_disk(DIR)` writes what --images reads",
    ".npy": "arrays are read with --bands, such as `--bands 1,2,3`",
    ".heic": "convert them to JPEG or PNG",
    ".mp4": "take single pictures out of the video",
}
"""What helps where there are other files than pictures."""


@dataclass(frozen=True)
class Pattern:
    """folder: the part before the first name with a wildcard.  regex: matches paths below it, with a group for each `*`."""

    folder: Path
    regex: re.Pattern[str]

    def key(self, path: str) -> str:
        """What the stars of the pattern stand for in a path below the folder."""
        match = self.regex.fullmatch(path)
        return "/".join(part.strip("/") for part in match.groups()) if match else path

    @property
    def stars(self) -> int:
        return self.regex.groups


def as_pattern(path: Path) -> Pattern | None:
    """The pattern that a path is; None for a path without wildcards, or one that exists as it stands.

    Raises InputError for a range that runs backwards, such as `[z-a]`.
    """
    if not _MAGIC.search(str(path)) or path.exists():
        return None
    parts = path.parts
    first = next(index for index, part in enumerate(parts) if _MAGIC.search(part))
    try:
        return Pattern(Path(*parts[:first]), re.compile(_regex("/".join(parts[first:]))))
    except re.error as error:
        raise InputError(f"the pattern '{path}' cannot be read: {error}", "write a range as [0-9]") from error


def _regex(text: str) -> str:
    found, at = "", 0
    while at < len(text):
        if text.startswith("**/", at):
            found, at = found + "(.*/)?", at + 3
        elif text[at] == "*":
            found, at = found + "([^/]*)", at + 1
        elif text[at] == "?":
            found, at = found + "([^/])", at + 1
        elif text[at] == "[" and (match := re.match(r"\[([!^]?)([^]\\/]+)\]", text[at:])):
            found, at = found + f"([{'^' if match[1] else ''}{match[2]}])", at + match.end()
        else:
            found, at = found + re.escape(text[at]), at + 1
    return found


def list_files(path: Path, wanted: Wanted) -> Files:
    """The wanted files of a folder or archive, or those that a pattern means.

    Raises InputError as `open_files` does, and for a pattern that means no file.
    """
    files = _list(path, wanted)
    if not files.members and (pattern := as_pattern(path)) is not None:
        raise InputError(
            f"no file below '{pattern.folder}' is called like '{path}'", "`*` stands for a part of one name, `**/` for folders"
        )
    return files


def list_pictures(path: Path, endings: Sequence[str], option: str) -> Files:
    """The files of a folder, archive or pattern that have one of the endings, in any case.

    option: the one that gave the path.  Raises InputError as `list_files` does, and if all files are others, with their kinds.
    """
    files = _list(path, lambda name: name.lower().endswith(tuple(endings)))
    if files.members:
        return files
    met = Counter(PurePosixPath(name).suffix.lower() for name in list_files(path, lambda _: True).members)
    others = ", ".join(f"{count:,} {ending or 'without an ending'}" for ending, count in met.most_common(3))
    raise InputError(
        f"{option}: {files.given} holds no pictures ({', '.join(endings)})"
        + (f" but files of other kinds: {others}" if met else ""),
        next((_INSTEAD[ending] for ending, _ in met.most_common() if ending in _INSTEAD), "give the folder that holds them"),
    )


def _list(path: Path, wanted: Wanted) -> Files:
    pattern = as_pattern(path)
    if pattern is None:
        return open_files([path], wanted)
    files = open_files([pattern.folder], lambda name: wanted(name) and pattern.regex.fullmatch(name) is not None)
    return Files(f"'{path}'", f"files '{path.name}' of {files.names}", files.members, files.notes)
