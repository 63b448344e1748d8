"""Files, folders and patterns -> the pictures they name, read upright. Needs no torch."""

import glob
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from segctl.data.files.archives import PlainFile, files_below
from segctl.data.files.pictures import read_image
from segctl.data.files.windows import Place, place_of_picture
from segctl.errors import InputError
from segctl.files import real_path
from segctl.inference.videos import VIDEO_ENDINGS, is_video

PICTURE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class FoundPicture:
    """A picture or video file and the name of its outputs: the path below the folder that was given, without ending."""

    path: Path
    name: str

    @cached_property
    def place(self) -> Place | None:
        """Where a GeoTIFF lies; None for any other picture."""
        return place_of_picture(self.path)

    @cached_property
    def is_video(self) -> bool:
        """Whether its ending says that it is a video; its content decides where the ending says nothing."""
        ending = self.path.suffix.lower()
        return ending in VIDEO_ENDINGS or (ending not in PICTURE_ENDINGS and is_video(self.path))


def find_pictures(given: Sequence[str], endings: tuple[str, ...] = PICTURE_ENDINGS) -> list[FoundPicture]:
    """Every picture or video that files, folders (with all folders below) and patterns (`*`, `**`) name, once, in order.

    endings: of the names of files in folders and patterns; a file that is named itself may have any.
    Raises InputError for a name without a picture, and where two pictures would get outputs of the same name.
    """
    found: dict[Path, FoundPicture] = {}
    for text in given:
        for picture in _expand(text, endings):
            found.setdefault(real_path(picture.path), picture)
    names: dict[str, FoundPicture] = {}
    for picture in found.values():
        # The frames of a video lie in a folder of its name.
        output = f"{picture.name}/" if picture.is_video else f"{picture.name}.png"
        if (other := names.setdefault(output, picture)) is not picture:
            raise InputError(
                f"'{other.path}' and '{picture.path}' would both become '{output}'",
                "run the command once for each of them, or give the folder above them",
            )
    for picture in found.values():
        for above in PurePosixPath(picture.name).parents:
            if (video := names.get(f"{above}/")) is not None:
                raise InputError(
                    f"the masks of '{picture.path}' would lie among the frames of '{video.path}', in '{above}/'",
                    "run the command once for each of them",
                )
    return list(found.values())


def _expand(text: str, endings: tuple[str, ...]) -> list[FoundPicture]:
    path = Path(text)
    if path.is_file():
        return [FoundPicture(path, path.stem)]
    if path.is_dir():
        inside = files_below(path, lambda name: name.lower().endswith(endings))
        if not inside:
            raise InputError(f"the folder '{text}' holds no picture", f"give files ending in {', '.join(endings)}")
        return [FoundPicture(file, file.relative_to(path).with_suffix("").as_posix()) for file in inside]
    matches = [Path(match) for match in sorted(glob.glob(text, recursive=True))] if glob.has_magic(text) else []  # noqa: PTH207 - absolute patterns too
    pictures = [FoundPicture(match, match.stem) for match in matches if _is_picture(match, endings)]
    if not pictures:
        raise InputError(
            f"'{text}' is not a picture, a folder or a pattern that matches pictures",
            "give files, folders or patterns such as 'a/*.jpg'",
        )
    return pictures


def _is_picture(path: Path, endings: tuple[str, ...]) -> bool:
    return path.name.lower().endswith(endings) and path.is_file() and not path.name.startswith(".")


def read_upright(path: Path) -> NDArray[np.uint8]:
    """The picture as RGB uint8 (H, W, 3), rotated as its EXIF orientation says. Raises InputError naming the file."""
    return read_image(PlainFile(str(path), path))
