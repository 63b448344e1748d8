"""A person's own pictures and labels: a folder (or archive) of each, and a class table.

A picture and its label have the same path below their folders, endings apart; where the folders are built differently, the same
name is enough. Index maps (8-bit grey, palette, black and white) are read by the table's ids, RGB masks by its colours.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segctl.data.datasets.class_file import OwnClasses, read_classes
from segctl.data.datasets.label_files import ColorMap, IdMap, Label, label_of_colors, label_of_ids
from segctl.data.datasets.own_splits import split_samples
from segctl.data.datasets.pairs import Pairs, unpaired
from segctl.data.files.archives import Files, open_files
from segctl.data.files.entries import File
from segctl.data.files.pictures import Picture
from segctl.data.findings import Finding
from segctl.errors import InputError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LABEL_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
LOSSY_ENDINGS = (".jpg", ".jpeg")
LINE = "--images DIR --labels DIR --classes FILE"


@dataclass(frozen=True)
class OwnFiles:
    """Where everything lies; `splits` are texts such as "val=0.2" or "val=val.txt", `seed` draws the ratios."""

    images: Path
    labels: Path
    classes: Path
    splits: tuple[str, ...] = ()
    seed: int = 0


def own_files(
    images: Path | None, labels: Path | None, classes: Path | None, splits: tuple[str, ...], seed: int
) -> OwnFiles | None:
    """What a person gave of their own data; None where that is nothing. Raises InputError where it is not all of it."""
    if images is None and labels is None and classes is None:
        if splits:
            raise InputError(f"--split is '{splits[0]}', but the splits of a published dataset are given", f"it goes with {LINE}")
        return None
    if images is None or labels is None or classes is None:
        given = {"--images": images, "--labels": labels, "--classes": classes}
        absent = [option for option, value in given.items() if value is None]
        raise InputError(f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing", f"give {LINE} together")
    return OwnFiles(images, labels, classes, splits, seed)


@dataclass(frozen=True)
class OwnLabel:
    """An index map or a mask, whichever the file turns out to be and the class table can read."""

    picture: Picture
    ids: IdMap | None
    colors: ColorMap | None

    def size(self) -> tuple[int, int]:
        return self.picture.size()

    def digest(self) -> str:
        return self.picture.digest()

    def decode(self) -> Label:
        decoded = self.picture.decode()
        if decoded.array.ndim == 3 and self.colors is not None:
            return label_of_colors(self.picture, decoded, self.colors)
        if self.ids is None:
            raise RuntimeError("a class table reads ids or colours; the picture's modes let nothing else through")
        return label_of_ids(self.picture, decoded, self.ids)


def check_own_name(name: str, known: list[str]) -> None:
    """Raise InputError where a dataset of one's own cannot be called that."""
    if name in known:
        raise InputError(f"'{name}' is the name of a dataset that segctl knows", "call your own dataset something else")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name == "downloads":
        raise InputError(f"a dataset cannot be called '{name}'", "use letters, digits, - and _")


def open_own(name: str, own: OwnFiles) -> Pairs:
    """Pair pictures with labels and split them. Raises InputError where the whole does not fit; single files are problems."""
    classes = read_classes(own.classes)
    pictures = open_files([own.images], lambda path: path.lower().endswith(IMAGE_ENDINGS))
    labels = open_files([own.labels], lambda path: path.lower().endswith((*LABEL_ENDINGS, *LOSSY_ENDINGS)))
    for files, what in ((pictures, "pictures"), (labels, "labels")):
        if not files.members:
            raise InputError(
                f"{files.given} holds no {what} ({', '.join(IMAGE_ENDINGS if files is pictures else LABEL_ENDINGS)})"
            )
    paired = _pair(pictures, labels)
    drawn = split_samples(paired.folders, own.splits, own.seed)
    names = sorted({sample for listed in drawn.splits.values() for sample in listed})
    read = classes.table.to_json()
    return Pairs(
        name=name,
        rule=f"own/1 {classes.digest}",
        origin=f"images from {pictures.names}, labels from {labels.names}, {len(read['rows'])} rows of '{own.classes.name}'",
        classes=classes.table,
        splits=drawn.splits,
        images={sample: Picture(sample, "image", paired.pictures[sample], ("RGB", "L")) for sample in names},
        labels={sample: _label(sample, paired.labels[sample], classes) for sample in names},
        instances={},
        groups=None,
        notes=(*pictures.notes, *labels.notes, *drawn.notes),
        problems=(*paired.problems, *drawn.problems),
    )


def _label(sample: str, file: File, classes: OwnClasses) -> OwnLabel:
    modes = (("L", "P", "1") if classes.ids else ()) + (("RGB",) if classes.colors else ())
    role = "label" if classes.ids else "mask"
    return OwnLabel(Picture(sample, role, file, modes), classes.ids, classes.colors)


@dataclass(frozen=True)
class _Paired:
    """Both files of every sample, and the folder below the pictures' top that each lies in ("" for the top itself)."""

    pictures: dict[str, File]
    labels: dict[str, File]
    folders: dict[str, str]
    problems: list[Finding]


def _pair(pictures: Files, labels: Files) -> _Paired:
    images, problems = _by_key(pictures.members, whole=True)
    targets, more = _by_key(labels.members, whole=True)
    if not images.keys() & targets.keys():
        images, problems = _by_key(pictures.members, whole=False)
        targets, more = _by_key(labels.members, whole=False)
    both = sorted(images.keys() & targets.keys())
    if not both:
        first, second = next(iter(images)), next(iter(targets))
        raise InputError(
            f"no picture of {pictures.given} has a label of its name in {labels.given}: pictures are called like '{first}', "
            f"labels like '{second}'",
            "give a label the name of its picture",
        )
    problems = [*problems, *more, *unpaired(images, targets, lambda role, key: _missing(pictures, labels, role, key))]
    problems += [_lossy(path, file) for path, file in labels.members.items() if path.lower().endswith(LOSSY_ENDINGS)]
    stems = [PurePosixPath(key).name for key in both]
    unique = len(set(stems)) == len(stems)
    names = {key: stem if unique else key.replace("/", "-") for key, stem in zip(both, stems, strict=True)}
    tops = {PurePosixPath(path).with_suffix("").as_posix(): path.rpartition("/")[0] for path in pictures.members}
    by_stem = {PurePosixPath(key).name: folder for key, folder in tops.items()}
    return _Paired(
        pictures={names[key]: images[key] for key in both},
        labels={names[key]: targets[key] for key in both},
        folders={names[key]: tops.get(key, by_stem[PurePosixPath(key).name]) for key in both},
        problems=problems,
    )


def _by_key(members: Mapping[str, File], *, whole: bool) -> tuple[dict[str, File], list[Finding]]:
    """Files by path (or name alone) without the ending, and a finding for each that two share."""
    found: dict[str, File] = {}
    problems = []
    for path, file in members.items():
        key = PurePosixPath(path).with_suffix("").as_posix() if whole else PurePosixPath(path).stem
        if key in found:
            problem = f"sample '{key}' is there twice, as '{found[key].where}' and '{file.where}'"
            problems.append(Finding(key, problem, "keep one of them"))
        found[key] = file
    return found, problems


def _missing(pictures: Files, labels: Files, role: str, key: str) -> str:
    files, endings = (pictures, IMAGE_ENDINGS) if role == "image" else (labels, LABEL_ENDINGS)
    return f"{files.given} holds no '{key}{endings[0]}' (or another ending)"


def _lossy(path: str, file: File) -> Finding:
    name = PurePosixPath(path).stem
    problem = f"the label of sample '{name}' ({file.where}) is a JPEG, whose values are not exact"
    return Finding(name, problem, "save the labels as PNG from where they were drawn")
