"""How people name pictures and their labels: extensions, folders and suffixes, and what two names have in common."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path, PurePosixPath

from segctl.data.files.archives import File, Files, PlainFile
from segctl.files import real_path

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LABEL_ENDINGS = (".png", ".bmp", ".tif", ".tiff", ".gif")
LOSSY_ENDINGS = (".jpg", ".jpeg", ".webp")
"""Labels with such an ending are listed too: the reader decides by the content, and says so if it is lossy."""
IMAGE_FOLDERS = frozenset({"images", "image", "img", "imgs", "jpegimages", "pictures", "photos", "leftimg8bit"})
LABEL_FOLDERS = frozenset(
    {"masks", "mask", "labels", "label", "annotations", "annotation", "gt", "segmentationclass", "gtfine", "groundtruth"}
)
IMAGE_SUFFIXES = ("_leftImg8bit", "_sat", "_image", "_img")
LABEL_SUFFIXES = (
    *("_gtFine_labelIds", "_gtFine_labelTrainIds", "_gtCoarse_labelIds", "_labelIds", "_labelTrainIds"),
    *("_mask", "_masks", "-mask", "_label", "_labels", "_seg", "_segmentation", "_annotation", "_gt", "_L"),
)
INSTANCE_SUFFIXES = ("_instanceIds", "_instances", "_instance", "_panoptic")
"""What other tools add to the name of a picture, or to that of its label or instance map."""


def place_of(file: File) -> Path:
    """The real path of a plain file."""
    return real_path(file.container) if isinstance(file, PlainFile) else Path(file.where)


def without(files: Files, places: set[Path]) -> Files:
    if not places:
        return files
    return only(files, [path for path, file in files.members.items() if place_of(file) not in places])


def only(files: Files, paths: Iterable[str]) -> Files:
    return replace(files, members={path: files.members[path] for path in paths if path in files.members})


def in_folder_called(path: str, folders: frozenset[str]) -> bool:
    return any(part.lower() in folders for part in path.split("/")[:-1])


def sample_names(keys: list[str]) -> dict[str, str]:
    """A name for each key: its last part if that is unique, else its parts joined by as many hyphens as keep names apart."""
    stems = [PurePosixPath(key).name for key in keys]
    if len(set(stems)) == len(stems):
        return dict(zip(keys, stems, strict=True))
    hyphens = "-"
    while len({key.replace("/", hyphens) for key in keys}) < len(keys):  # x/1 and x-1
        hyphens += "-"
    return {key: key.replace("/", hyphens) for key in keys}


def path_of(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix()


def bare_path(path: str, suffixes: tuple[str, ...]) -> str:
    """The path without its ending and without one of the suffixes."""
    plain = path_of(path)
    return next((short for suffix in suffixes if (short := plain.removesuffix(suffix)) not in (plain, "")), plain)


def neutral(path: str) -> str:
    """The path without the folders that only say whether it is a picture or a label, unless nothing else is left."""
    *folders, name = path.split("/")
    return "/".join([*(folder for folder in folders if folder.lower() not in IMAGE_FOLDERS | LABEL_FOLDERS), name])


def name_of(path: str) -> str:
    return path.rpartition("/")[2]


Key = Callable[[str], str]
"""The name of a sample, from the path of a file without its ending."""


def _keys() -> list[tuple[Key, Key]]:
    """How a picture and its label may name their sample, the strictest way first."""

    def image(path: str) -> str:
        return bare_path(path, IMAGE_SUFFIXES)

    def label(path: str) -> str:
        return bare_path(path, LABEL_SUFFIXES)

    found: list[tuple[Key, Key]] = []
    for first, second in ((path_of, path_of), (path_of, label), (image, label)):
        for shorten in (str, neutral, name_of):
            found.append((_then(first, shorten), _then(second, shorten)))
    return found


def _then(first: Key, second: Key) -> Key:
    return lambda path: second(first(path))


NAME_KEYS = _keys()
"""Pairs of keys, for pictures and for labels, the strictest first."""


def suffix_keys(suffix: str) -> list[tuple[Key, Key]]:
    """The same where every label has this suffix."""

    def label(path: str) -> str:
        return path_of(path).removesuffix(suffix)

    return [(_then(path_of, shorten), _then(label, shorten)) for shorten in (str, neutral, name_of)]
