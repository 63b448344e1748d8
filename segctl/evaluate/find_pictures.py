"""A person's own pictures: files, folders and patterns -> pictures, read upright. Needs no torch."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from segctl.data.files.archives import PlainFile
from segctl.data.files.pictures import read_image
from segctl.errors import InputError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Found:
    """A picture, and the name its outputs get: its path below the folder it was found in, without ending."""

    path: Path
    name: str


def find_pictures(given: Sequence[str]) -> list[Found]:
    """Every picture that files, folders (searched whole) and patterns (`*`, `**`) stand for, each once, in the order given.

    Raises InputError for one that stands for nothing, and where two pictures would get one name.
    """
    found: dict[Path, Found] = {}
    for text in given:
        for picture in _expand(text):
            found.setdefault(picture.path.resolve(), picture)
    names: dict[str, Found] = {}
    for picture in found.values():
        if (other := names.setdefault(picture.name, picture)) is not picture:
            raise InputError(
                f"'{other.path}' and '{picture.path}' would both become '{picture.name}.png'",
                "give them apart, or the folder above them",
            )
    return list(found.values())


def _expand(text: str) -> list[Found]:
    path = Path(text)
    if path.is_file():
        return [Found(path, path.stem)]
    if path.is_dir():
        inside = sorted(file for file in path.rglob("*") if _is_picture(file))
        if not inside:
            raise InputError(f"the folder '{text}' holds no picture", f"pictures end with {', '.join(ENDINGS)}")
        return [Found(file, file.relative_to(path).with_suffix("").as_posix()) for file in inside]
    matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))] if glob.has_magic(text) else []  # noqa: PTH207 - absolute patterns too
    pictures = [Found(match, match.stem) for match in matches if _is_picture(match)]
    if not pictures:
        raise InputError(f"'{text}' is no picture, folder or pattern that matches one", "give files, folders or patterns")
    return pictures


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and path.is_file() and not path.name.startswith(".")


def read_upright(path: Path) -> NDArray[np.uint8]:
    """RGB uint8 (H, W, 3), turned upright as its EXIF orientation says. Raises InputError that names the file."""
    return read_image(PlainFile(str(path), path))
