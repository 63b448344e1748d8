"""A person's own images and labels: a folder (or archive) of each, and a class table.

An image and its label have the same path below their folders, endings apart; if the folders are built differently, the same
name is enough. Index maps (8-bit grey, palette, black and white) are read by the table's ids, RGB masks by its colours.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from segctl.data.datasets import OWN_LINE
from segctl.data.datasets.class_file import read_classes
from segctl.data.datasets.own_splits import split_samples
from segctl.data.datasets.pairs import ColorMap, IdMap, PairReader, PictureLabel, by_sample, pair, stem_of
from segctl.data.files.archives import File, Files, open_files
from segctl.data.files.pictures import DECODER, Picture
from segctl.data.findings import Finding
from segctl.data.source import Source
from segctl.errors import InputError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp")
LABEL_ENDINGS = (".png", ".bmp", ".tif", ".tiff")
LOSSY_ENDINGS = (".jpg", ".jpeg")


@dataclass(frozen=True)
class OwnFiles:
    """What a person gave: folders or archives, a class table, texts such as "val=0.2" or "val=val.txt", and a seed for ratios."""

    images: Path
    labels: Path
    classes: Path
    splits: tuple[str, ...] = ()
    seed: int = 0


def own_files(
    images: Path | None, labels: Path | None, classes: Path | None, splits: tuple[str, ...], seed: int
) -> OwnFiles | None:
    """A person's own data from the options; None if none of them was given. Raises InputError if some are missing."""
    if images is None and labels is None and classes is None:
        if splits:
            raise InputError(f"--split is '{splits[0]}', but a published dataset has its own splits", f"it goes with {OWN_LINE}")
        return None
    if images is None or labels is None or classes is None:
        given = {"--images": images, "--labels": labels, "--classes": classes}
        absent = [option for option, value in given.items() if value is None]
        raise InputError(f"{' and '.join(absent)} {'is' if len(absent) == 1 else 'are'} missing", f"give {OWN_LINE} together")
    return OwnFiles(images, labels, classes, splits, seed)


@dataclass(frozen=True)
class OwnRule:
    """Index maps by `ids` and masks by `colors`; None if the class table has no ids or no colours."""

    ids: IdMap | None
    colors: ColorMap | None

    def train_ids(self, what: object, values: np.ndarray) -> tuple[np.ndarray, int]:
        if values.ndim == 3 and self.colors is not None:
            return self.colors.train_ids(what, values)
        if self.ids is None:
            raise RuntimeError("a class table reads ids or colours; the picture's modes let nothing else through")
        return self.ids.train_ids(what, values)


def check_own_name(name: str, known: list[str]) -> None:
    """Raise InputError for a name that a person's own dataset cannot have."""
    if name in known:
        raise InputError(f"'{name}' is the name of a dataset that segctl knows", "call your own dataset something else")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or name == "downloads":
        raise InputError(f"a dataset cannot be called '{name}'", "use letters, digits, - and _")


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
    paired = _pair(pictures, labels)
    drawn = split_samples(paired.folders, own.splits, own.seed)
    names = sorted({sample for listed in drawn.splits.values() for sample in listed})
    rows = len(classes.table.rows)
    modes = (("L", "P", "1") if classes.ids else ()) + (("RGB",) if classes.colors else ())
    role, rule = "label" if classes.ids else "mask", OwnRule(classes.ids, classes.colors)
    return Source(
        name=name,
        rule=f"own/1 {classes.digest}",
        origin=f"images from {pictures.names}, labels from {labels.names}, {rows} rows of '{own.classes.name}'",
        decoder=DECODER,
        classes=classes.table,
        splits=drawn.splits,
        samples=PairReader(
            images={sample: Picture(sample, "image", paired.pictures[sample], ("RGB", "L")) for sample in names},
            labels={sample: PictureLabel(Picture(sample, role, paired.labels[sample], modes), rule) for sample in names},
        ),
        notes=(*pictures.notes, *labels.notes, *drawn.notes),
        problems=(*paired.problems, *drawn.problems),
    )


@dataclass(frozen=True)
class _Paired:
    """Both files of every sample, and the folder of its image below the top of the images ("" for the top itself)."""

    pictures: dict[str, File]
    labels: dict[str, File]
    folders: dict[str, str]
    problems: list[Finding]


def _pair(pictures: Files, labels: Files) -> _Paired:
    images, problems = by_sample(pictures.members, _path_of)
    targets, more = by_sample(labels.members, _path_of)
    if not images.keys() & targets.keys():  # the folders are built differently: the names alone must do
        images, problems = by_sample(pictures.members, stem_of)
        targets, more = by_sample(labels.members, stem_of)

    def missing(role: str, key: str) -> str:
        files, endings = (pictures, IMAGE_ENDINGS) if role == "image" else (labels, LABEL_ENDINGS)
        return f"{files.given} holds no '{key}{endings[0]}' (or another ending)"

    both, unpaired = pair(images, targets, missing)
    if not both:
        first, second = next(iter(images)), next(iter(targets))
        raise InputError(
            f"no picture of {pictures.given} has a label of its name in {labels.given}: pictures are called like '{first}', "
            f"labels like '{second}'",
            "give a label the name of its picture",
        )
    problems += [*more, *unpaired]
    for path, file in labels.members.items():
        if path.lower().endswith(LOSSY_ENDINGS):
            problem = f"the label of sample '{stem_of(path)}' ({file.where}) is a JPEG, whose values are not exact"
            problems.append(Finding(stem_of(path), problem, "save the labels as PNG from where they were drawn"))
    stems = [PurePosixPath(key).name for key in both]
    unique = len(set(stems)) == len(stems)
    names = {key: stem if unique else key.replace("/", "-") for key, stem in zip(both, stems, strict=True)}
    tops = {_path_of(path): path.rpartition("/")[0] for path in pictures.members}
    by_stem = {PurePosixPath(key).name: folder for key, folder in tops.items()}
    return _Paired(
        pictures={names[key]: images[key] for key in both},
        labels={names[key]: targets[key] for key in both},
        folders={names[key]: tops.get(key, by_stem[PurePosixPath(key).name]) for key in both},
        problems=problems,
    )


def _path_of(path: str) -> str:
    return PurePosixPath(path).with_suffix("").as_posix()
