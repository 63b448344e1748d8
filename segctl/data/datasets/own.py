"""A person's own images and labels: a folder (or archive) of each, and a class table.

An image and its label have the same path below their folders, apart from endings; if the folders differ, the same
name is enough, and then a name with a suffix (`a_mask.png`). Both may lie in one folder, if names or endings tell them apart.
Index maps (grey, palette, black and white) are read by the table's ids, RGB masks by its colours; a table of colours alone reads
every label by its colours.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from segctl.data.classes import ClassTable
from segctl.data.datasets import OWN_LINE
from segctl.data.datasets.class_file import read_classes
from segctl.data.datasets.own_splits import split_samples
from segctl.data.datasets.pairs import (
    ColorMap,
    IdMap,
    Label,
    NumberedInstances,
    PairReader,
    PictureFile,
    Unknown,
    by_sample,
    pair,
)
from segctl.data.files.archives import File, Files, PlainFile, open_files
from segctl.data.files.pictures import DECODER, Decoded, Picture
from segctl.data.findings import Finding
from segctl.data.source import Source
from segctl.errors import InputError
from segctl.files import real_path
from segctl.ignored import IGNORED

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
RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{number}" for port in ("com", "lpt") for number in range(1, 10))})
"""Names that no file or folder can have on Windows."""


@dataclass(frozen=True)
class OwnFiles:
    """What a person gave: folders or archives, a class table, texts such as "val=0.2" or "val=val.txt", and a seed for ratios.

    instances: a folder of instance maps (see `instance_ids.py`), for the segments that mIoU_K scores.
    """

    images: Path
    labels: Path
    classes: Path
    splits: tuple[str, ...] = ()
    seed: int = 0
    instances: Path | None = None


def own_files(
    images: Path | None,
    labels: Path | None,
    classes: Path | None,
    splits: tuple[str, ...],
    seed: int,
    instances: Path | None = None,
) -> OwnFiles | None:
    """A person's own data from the options; None if none of them was given. Raises InputError if some are missing."""
    if images is None and labels is None and classes is None:
        if splits:
            raise InputError(f"--split is '{splits[0]}', but a published dataset has its own splits", f"it goes with {OWN_LINE}")
        if instances is not None:
            raise InputError(f"--instances is '{instances}', but a published dataset has its own", f"it goes with {OWN_LINE}")
        return None
    if images is None or labels is None or classes is None:
        given = {"--images": images, "--labels": labels, "--classes": classes}
        absent = [option for option, value in given.items() if value is None]
        raise InputError(f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing", f"give {OWN_LINE} together")
    return OwnFiles(images, labels, classes, splits, seed, instances)


@dataclass(frozen=True)
class OwnRule:
    """Index maps by `ids` and masks by `colors`; None if the class table has no ids or no colours.

    listed: the ids and the colours of its rows, so that a palette can be compared with both.
    """

    ids: IdMap | None
    colors: ColorMap | None
    listed: ClassTable

    def train_ids(self, what: object, found: Decoded) -> tuple[np.ndarray, Unknown]:
        """A decoded label -> train ids uint8 (H, W), 255 ignored; and what the class table does not name.

        Raises InputError that names the file `what` if it does not fit the table, or if ids and colours say different things.
        """
        if self.colors is not None and (self.ids is None or found.array.ndim == 3):
            colors = self.colors
            if found.array.ndim == 2:
                advice = f"{colors.advice}; if the values are class ids, give the table a column `id`"
                colors = ColorMap(colors.colors, advice)
            return colors.train_ids(what, found.colors())
        if self.ids is None:
            raise RuntimeError("a class table reads ids or colours; the picture's modes let nothing else through")
        if found.mode in ("P", "1"):
            return self._palette_train_ids(what, found, self.ids)
        return self.ids.train_ids(what, found.array)

    def _palette_train_ids(self, what: object, found: Decoded, ids: IdMap) -> tuple[np.ndarray, Unknown]:
        """The same for values that have colours: a palette's, or black and white.

        Such values are ids, unless they are no ids of the table and their colours are: programs that reduce a mask to a palette
        number its colours as they like. Black and white, and palettes of grey, may stand for the ids 0 and 255 in that way.
        """
        palette = np.array([[0, 0, 0], [255, 255, 255]], np.uint8) if found.palette is None else found.palette
        used = np.unique(found.array)
        by_id = np.frombuffer(ids.train, np.uint8)[used]
        are_ids = bool(np.frombuffer(ids.known, bool)[used].all())
        by_color = None if self._is_ramp(palette) else self._by_color(palette[used])
        if by_color is None or (are_ids and np.array_equal(by_id, by_color)):
            return ids.train_ids(what, found.array)
        if are_ids:
            value = int(used[np.flatnonzero(by_id != by_color)[0]])
            color = ",".join(map(str, palette[value].tolist()))
            raise InputError(
                f"{what} can be read in two ways: its value {value} is the id of one class, and its colour {color} is another's",
                "leave out the column of the class table that the labels do not follow: `color` or `id`",
            )
        table = np.full(256, IGNORED, np.uint8)
        table[used] = by_color
        return table[found.array], Unknown()

    @staticmethod
    def _is_ramp(palette: np.ndarray) -> bool:
        """Whether each value has the grey of its own number, so that the palette says nothing: uint8 (n, 3)."""
        return bool((palette == np.arange(len(palette))[:, None]).all())

    def _by_color(self, colors: np.ndarray) -> np.ndarray | None:
        """uint8 (n, 3) -> train ids uint8 (n,) by the table's colours, or greys by its ids; None if one is not in the table."""
        if self.colors is not None:
            known = dict(self.colors.colors)
            found = [known.get((red, green, blue)) for red, green, blue in colors.tolist()]
        else:
            by_id = {row.raw_id: row.train_id for row in self.listed.rows}
            found = [by_id.get(red) if red == green == blue else None for red, green, blue in colors.tolist()]
        return None if None in found else np.array(found, np.uint8)


@dataclass(frozen=True)
class OwnLabel(PictureFile):
    """A label file of a person's own data, read as its content and the class table say."""

    rule: OwnRule

    def decode(self) -> Label:
        decoded = self.picture.decode()
        array, unknown = self.rule.train_ids(self.picture, decoded)
        return Label(array, decoded.sha256, len(decoded.content), unknown)


def check_own_name(name: str, known: list[str]) -> None:
    """Raise InputError for a name that a person's own dataset cannot have."""
    if name in known:
        raise InputError(f"'{name}' is the name of a dataset that segctl knows", "give your own dataset another name")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name == "downloads":
        raise InputError(f"a dataset cannot be called '{name}'", "use letters, digits, - and _")
    if name.lower() in RESERVED:
        raise InputError(f"a dataset cannot be called '{name}': Windows reserves the name", "give it another name")


def open_own(name: str, own: OwnFiles) -> Source:
    """Pair images with labels and split them.

    Raises InputError if the files as a whole do not fit; what is wrong with single files is in the source's `problems`.
    """
    classes = read_classes(own.classes)
    pictures = open_files([own.images], lambda path: path.lower().endswith(IMAGE_ENDINGS))
    labels = open_files([own.labels], lambda path: path.lower().endswith((*LABEL_ENDINGS, *LOSSY_ENDINGS)))
    for files, what, endings in ((pictures, "pictures", IMAGE_ENDINGS), (labels, "labels", LABEL_ENDINGS)):
        if not files.members:
            raise InputError(f"{files.given} holds no {what} ({', '.join(endings)})")
    pictures, labels = _told_apart(own, pictures, labels)
    paired = _pair(pictures, labels)
    drawn = split_samples(paired.folders, own.splits, own.seed, paired.paths)
    names = sorted({sample for listed in drawn.splits.values() for sample in listed})
    instances, lacking = _instances(own, paired, drawn.splits)
    rows = len(classes.table.rows)
    modes = ("L", "P", "1") if classes.ids else ("RGB", "L", "P", "1")
    modes = (*modes, "RGB") if classes.ids and classes.colors else modes
    role, rule = "label" if classes.ids else "mask", OwnRule(classes.ids, classes.colors, classes.table)
    return Source(
        name=name,
        rule=f"own/1 {classes.digest}",
        origin=f"images from {pictures.names}, labels from {labels.names}, {rows} rows of '{own.classes.name}'",
        decoder=DECODER,
        classes=classes.table,
        splits=drawn.splits,
        samples=PairReader(
            images={sample: Picture(sample, "image", paired.pictures[sample], ("RGB", "L")) for sample in names},
            labels={sample: OwnLabel(Picture(sample, role, paired.labels[sample], modes), rule) for sample in names},
            instances=instances,
        ),
        notes=(*pictures.notes, *labels.notes, *drawn.notes),
        label_advice=f"correct the labels, or the table '{own.classes.name}'",
        problems=(*paired.problems, *drawn.problems, *lacking),
    )


def _told_apart(own: OwnFiles, pictures: Files, labels: Files) -> tuple[Files, Files]:
    """The pictures and the labels, each without the files of the other, where one folder or archive holds both.

    Raises InputError if neither folders nor names nor endings tell them apart.
    """
    images, masks = real_path(own.images), real_path(own.labels)
    if images != masks:
        # One folder inside the other: the inner one holds what it is called for.
        inner = {_place(file) for file in labels.members.values()} if images in masks.parents else set()
        outer = {_place(file) for file in pictures.members.values()} if masks in images.parents else set()
        return _without(pictures, inner), _without(labels, outer)
    paths = sorted(pictures.members.keys() | labels.members.keys())
    ways: tuple[tuple[Callable[[str], bool], Callable[[str], bool]], ...] = (
        (lambda path: _in_folder(path, LABEL_FOLDERS), lambda path: _in_folder(path, IMAGE_FOLDERS)),
        (lambda path: _bare(path, LABEL_SUFFIXES) != _path_of(path), lambda path: True),
        (lambda path: not path.lower().endswith(LOSSY_ENDINGS), lambda path: path.lower().endswith(LOSSY_ENDINGS)),
    )
    for is_label, is_image in ways:
        chosen = [path for path in paths if is_label(path)]
        others = [path for path in paths if not is_label(path) and is_image(path)]
        if chosen and others:
            return _only(pictures, others), _only(labels, chosen)
    raise InputError(
        f"'{own.images}' is given for pictures and labels alike, so '{paths[0]}' was taken for its own label",
        "give the folder of the pictures with --images and that of the labels with --labels, or name labels like 'NAME_mask.png'",
    )


def _place(file: File) -> Path:
    """The real path of a plain file."""
    return real_path(file.container) if isinstance(file, PlainFile) else Path(file.where)


def _without(files: Files, places: set[Path]) -> Files:
    if not places:
        return files
    return _only(files, [path for path, file in files.members.items() if _place(file) not in places])


def _only(files: Files, paths: Iterable[str]) -> Files:
    return replace(files, members={path: files.members[path] for path in paths if path in files.members})


def _in_folder(path: str, folders: frozenset[str]) -> bool:
    return any(part.lower() in folders for part in path.split("/")[:-1])


@dataclass(frozen=True)
class _Paired:
    """Both files of every sample, the path of its image, and the folder of that path ("" for the top of the images)."""

    pictures: dict[str, File]
    labels: dict[str, File]
    paths: dict[str, str]
    folders: dict[str, str]
    problems: list[Finding]


def _pair(pictures: Files, labels: Files) -> _Paired:
    for kind in ("_labelIds", "_labelTrainIds"):  # Cityscapes lays instance maps and drawings beside them
        if any(_path_of(path).endswith(kind) for path in labels.members):
            labels = _only(labels, [path for path in labels.members if _path_of(path).endswith(kind)])
            break
    for image_key, label_key in _KEYS:
        images, problems = by_sample(pictures.members, image_key)
        targets, more = by_sample(labels.members, label_key)
        if images.keys() & targets.keys():
            break

    def missing(role: str, key: str) -> str:
        files, endings = (pictures, IMAGE_ENDINGS) if role == "image" else (labels, LABEL_ENDINGS)
        return f"{files.given} holds no '{key}{endings[0]}' (or another ending)"

    both, unpaired = pair(images, targets, missing)
    if not both:
        first, second = (_path_of(next(iter(files.members))) for files in (pictures, labels))
        raise InputError(
            f"no picture of {pictures.given} has a label of its name in {labels.given}: pictures have names like '{first}', "
            f"labels like '{second}'",
            f"give a label the name of its picture, or that name and one of {', '.join(LABEL_SUFFIXES[5:])}",
        )
    names = _sample_names(both)
    paths = {image_key(path): path for path in pictures.members}
    return _Paired(
        pictures={names[key]: images[key] for key in both},
        labels={names[key]: targets[key] for key in both},
        paths={names[key]: paths[key] for key in both},
        folders={names[key]: _neutral(paths[key]).rpartition("/")[0] for key in both},
        problems=[*problems, *more, *unpaired],
    )


def _instances(
    own: OwnFiles, paired: _Paired, splits: dict[str, list[str]]
) -> tuple[dict[str, NumberedInstances], list[Finding]]:
    """The instance map of each sample, and a finding for each sample without one in a split where others have one."""
    if own.instances is None:
        return {}, []
    files = open_files([own.instances], lambda path: path.lower().endswith(LABEL_ENDINGS))
    found: dict[str, File] = {}
    for shorten in (_path_of, _neutral, _name_of):
        keyed, twice = by_sample(files.members, lambda path, shorten=shorten: _bare(shorten(path), INSTANCE_SUFFIXES))  # type: ignore[misc]
        found = {name: keyed[key] for name, path in paired.paths.items() if (key := _path_of(shorten(path))) in keyed}
        if found:
            break
    if not found:
        raise InputError(f"no instance map of {files.given} has the name of a picture", "give each the name of its picture")
    modes = ("RGB", "L", "P", "I;16")
    maps = {name: NumberedInstances(Picture(name, "instance map", file, modes)) for name, file in found.items()}
    lacking = [
        Finding(name, f"sample '{name}' has no instance map, but others of '{split}' have one", "add it, or give a folder of all")
        for split, names in splits.items()
        if any(name in maps for name in names)
        for name in names
        if name not in maps
    ]
    return maps, [*twice, *lacking]


def _sample_names(keys: list[str]) -> dict[str, str]:
    """A name for each key: its last part if that is unique, else its parts joined by as many hyphens as keep names apart."""
    stems = [PurePosixPath(key).name for key in keys]
    if len(set(stems)) == len(stems):
        return dict(zip(keys, stems, strict=True))
    hyphens = "-"
    while len({key.replace("/", hyphens) for key in keys}) < len(keys):  # x/1 and x-1
        hyphens += "-"
    return {key: key.replace("/", hyphens) for key in keys}


def _path_of(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix()


def _bare(path: str, suffixes: tuple[str, ...]) -> str:
    """The path without its ending and without one of the suffixes."""
    plain = _path_of(path)
    return next((bare for suffix in suffixes if (bare := plain.removesuffix(suffix)) not in (plain, "")), plain)


def _neutral(path: str) -> str:
    """The path without the folders that only say whether it is a picture or a label, unless nothing else is left."""
    *folders, name = path.split("/")
    return "/".join([*(folder for folder in folders if folder.lower() not in IMAGE_FOLDERS | LABEL_FOLDERS), name])


def _name_of(path: str) -> str:
    return path.rpartition("/")[2]


_Key = Callable[[str], str]


def _keys() -> list[tuple[_Key, _Key]]:
    """How a picture and its label may name their sample, the strictest way first."""

    def image(path: str) -> str:
        return _bare(path, IMAGE_SUFFIXES)

    def label(path: str) -> str:
        return _bare(path, LABEL_SUFFIXES)

    found: list[tuple[_Key, _Key]] = []
    for first, second in ((_path_of, _path_of), (_path_of, label), (image, label)):
        for shorten in (str, _neutral, _name_of):
            found.append((_then(first, shorten), _then(second, shorten)))
    return found


def _then(first: _Key, second: _Key) -> _Key:
    return lambda path: second(first(path))


_KEYS = _keys()
