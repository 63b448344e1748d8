"""Finds files by paths that somebody else wrote: in a list of names, or in an annotation file."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Mapping
from pathlib import PurePosixPath

ENDING = r"\.(?:jpe?g|png|bmp|tiff?|webp|gif)"
"""Extensions of pictures and labels."""


def stemmed(path: str) -> str:
    """A path without the ending of a picture or label."""
    return re.sub(rf"{ENDING}$", "", path, flags=re.IGNORECASE)


def leads_outside(path: str) -> bool:
    """Whether a path begins at the root of a disk, or climbs above the folder that it starts in."""
    plain = path.replace("\\", "/")
    depth = 0
    for part in plain.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        if depth < 0:
            return True
    return plain.startswith("/") or bool(re.match(r"[A-Za-z]:", plain)) or "://" in plain


class PathIndex:
    """Finds the samples that a path names.

    paths: the path of each sample's picture, with `/`. A path from elsewhere may have more folders in front, or fewer.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self.paths = paths
        self.has_spaces = any(" " in path for path in paths.values())
        # By every end of a path that begins at a folder or a file's name: `480p/bear/0.jpg`, `bear/0.jpg`, `0.jpg`.
        self._by_end: dict[str, list[str]] = defaultdict(list)
        self._whole = {form for path in paths.values() for form in (path, stemmed(path))}
        for name in sorted(paths):
            for form in dict.fromkeys([paths[name], stemmed(paths[name])]):
                parts = form.split("/")
                for start in range(len(parts)):
                    self._by_end["/".join(parts[start:])].append(name)

    def find(self, text: str) -> list[str]:
        """The samples that a path names: one if all is well, none for an unknown path, several for an ambiguous one."""
        composed = unicodedata.normalize("NFC", text)
        return next((found for form in dict.fromkeys([composed, stemmed(composed)]) if (found := self._named(form))), [])

    def _named(self, text: str) -> list[str]:
        if text in self.paths:
            return [text]
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
        if found := self._by_end.get("/".join(parts)):
            return found
        # A path from elsewhere has more folders in front: they are cut off until a whole path is left.
        ends = ("/".join(parts[start:]) for start in range(1, len(parts)))
        return next((self._by_end[end] for end in ends if end in self._whole), [])


def last_name(path: str) -> str:
    """The name of a file without folders and ending, whichever system wrote the path."""
    return PurePosixPath(stemmed(path.replace("\\", "/"))).name
