"""Datasets of Hugging Face on the disk, as `save_to_disk` leaves them: a column of images and one of label maps.

    dataset_dict.json   train/{data-00000-of-00001.arrow, dataset_info.json, state.json}   validation/…

A file of a column is read by its number in its split; nothing is converted, so label maps stay exact.
"""

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from segctl.data.files.archives import File, Files, UnreadableError
from segctl.errors import InputError, first_line
from segctl.files import real_path

LABEL_COLUMNS = ("label", "labels", "mask", "masks", "annotation", "annotations", "segmentation", "semantic", "gt", "label_map")
INSTALL = "run `pip install 'segctl[hf]'`, which installs `datasets`"


@dataclass(frozen=True)
class SavedFile:
    """A picture in a row of a column of a saved split."""

    where: str
    folder: Path
    column: str
    row: int

    def read(self, limit: int | None = None) -> bytes:
        content = _split(self.folder)[self.row][self.column]
        if content is None:
            raise UnreadableError("the row holds no picture")
        if content.get("bytes") is not None:
            found: bytes = content["bytes"]
            return found[:limit]
        # A dataset may keep the paths of files instead of the files; they are read only below its own folder.
        path = real_path(Path(content.get("path") or ""))
        if self.folder.parent not in path.parents and self.folder not in path.parents:
            raise UnreadableError(f"the row names the file '{path}', which lies outside the dataset")
        return path.read_bytes()[:limit]


@dataclass(frozen=True)
class Saved:
    """The images and the label maps of a saved dataset, by split and row."""

    images: Files
    labels: Files
    notes: tuple[str, ...]


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` wrote the folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


def open_saved(folder: Path) -> Saved:
    """Raises InputError if the package is missing, the folder cannot be read, or its columns leave a choice."""
    if not is_saved(folder):
        raise InputError(
            f"'{folder}' is not a dataset that `save_to_disk` of Hugging Face wrote", "save it with `dataset.save_to_disk`"
        )
    splits = _splits(folder)
    images: dict[str, File] = {}
    labels: dict[str, File] = {}
    columns: tuple[str, str] | None = None
    for split, place in splits.items():
        data = _split(place)
        found = _columns(folder, data)
        if columns not in (None, found):
            raise InputError(f"the splits of '{folder}' have different columns", "save them with the same columns")
        columns = found
        start = f"{split}/" if split else ""
        width = len(str(max(len(data) - 1, 0)))
        for row in range(len(data)):
            path = f"{start}{row:0{width}d}.png"
            images[path] = SavedFile(f"{path}, column '{found[0]}' of '{folder.name}'", place, found[0], row)
            labels[path] = SavedFile(f"{path}, column '{found[1]}' of '{folder.name}'", place, found[1], row)
    if columns is None or not images:
        raise InputError(f"'{folder}' holds no rows", "save a dataset with rows")
    note = f"labels are a dataset of Hugging Face ('{folder.name}'): images in '{columns[0]}', label maps in '{columns[1]}'"
    given, names = f"'{folder}'", f"folder '{real_path(folder).name}'"
    return Saved(Files(given, names, images), Files(given, names, labels), (note,))


def _splits(folder: Path) -> dict[str, Path]:
    """The folder of each split; one without a name if the folder holds no splits."""
    index = folder / "dataset_dict.json"
    if not index.is_file():
        return {"": real_path(folder)}
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["splits"]
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("no list of splits")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"'{index}' names no splits: {first_line(error)}", "save the dataset again") from error
    if odd := [name for name in names if "/" in name or "\\" in name or name in ("", ".", "..")]:
        raise InputError(f"'{index}' names the split '{odd[0]}', a path that leads outside the folder", "save the dataset again")
    return {name: real_path(folder) / name for name in names}


@lru_cache(maxsize=8)
def _split(folder: Path) -> Any:
    """The rows of a split, pictures not decoded."""
    try:
        import datasets

        if not hasattr(datasets, "load_from_disk"):  # a folder named `datasets` passes for a package
            raise ImportError("this is a folder, not the package")
    except ImportError as error:
        raise InputError("reading a dataset of Hugging Face needs the package `datasets`", INSTALL) from error
    try:
        data = datasets.load_from_disk(str(folder))
        for name, feature in data.features.items():
            if isinstance(feature, datasets.Image):
                data = data.cast_column(name, datasets.Image(decode=False))
    except Exception as error:  # arrow raises nearly anything for a damaged file
        raise InputError(
            f"the dataset in '{folder}' cannot be read: {first_line(error)}", "save it again with `save_to_disk`"
        ) from error
    return data


def _columns(folder: Path, data: Any) -> tuple[str, str]:
    """The names of the columns of images and of label maps."""
    import datasets

    pictures = [name for name, feature in data.features.items() if isinstance(feature, datasets.Image)]
    labels = [name for name in pictures if name.lower() in LABEL_COLUMNS or name.lower().endswith(("_mask", "_label"))]
    images = [name for name in pictures if name not in labels]
    if len(images) != 1 or len(labels) != 1:
        shown = ", ".join(f"'{name}'" for name in data.features)
        raise InputError(
            f"'{folder}' has the columns {shown}, wanted one of images and one of label maps, both of the type Image",
            "rename the columns to 'image' and 'label', and remove other pictures",
        )
    return images[0], labels[0]
