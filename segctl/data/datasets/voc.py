"""PASCAL VOC 2012 with the extra labels of SBD, 21 classes.

    VOCdevkit/VOC2012/{JPEGImages/NAME.jpg, SegmentationClass/NAME.png, ImageSets/Segmentation/{train,val}.txt}
    benchmark_RELEASE/dataset/{cls/NAME.mat, train.txt, val.txt}        or        SegmentationClassAug/NAME.png

Splits: train, val, trainval and train_aug = (VOC train ∪ SBD train ∪ SBD val) − VOC val. Where both have a label, VOC's is taken:
it was drawn with more care and marks the border between things with 255, SBD's was not. Labels are palette PNGs whose index is
the class. SBD's own pictures are VOC's again and are not read.
Where VOC's two lists are the official ones, known by their MD5, train_aug must be the official one too: 10,582 names.
Source: the VOC 2012 development kit; Hariharan et al., "Semantic contours from inverse detectors".
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segctl.data.classes import IGNORED, ClassRow, ClassTable, bit_color
from segctl.data.datasets.label_files import IdMap, IndexLabel, LabelFile
from segctl.data.datasets.pairs import Pairs, read_list
from segctl.data.datasets.sbd import SbdLabel
from segctl.data.files.archives import Files, open_files
from segctl.data.files.entries import File
from segctl.data.files.pictures import Picture
from segctl.data.findings import Finding
from segctl.errors import InputError

_OBJECTS = (
    "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant sheep sofa"
)
_NAMES = ("background", *_OBJECTS.split(), "train", "tvmonitor")
CLASSES = ClassTable(
    (
        *(ClassRow(name, index, index, bit_color(index)) for index, name in enumerate(_NAMES)),
        ClassRow("border", IGNORED, IGNORED, (224, 224, 192)),
    )
)
IDS = IdMap.of(CLASSES, "use the labels as they were published")
OFFICIAL_MD5 = {
    "train": "223101833d3a86c8a837814f3e7afe88",
    "val": "5510db06bbb92848a0bf6109eba6d646",
    "train_aug": "215992f6fd958f89800449fdb4bbabe6",
}
"""MD5 of a split's sorted names, a line each."""
LAYOUT = (
    "give VOCtrainval_11-May-2012.tar or the folder VOCdevkit/VOC2012 with --source, "
    "and for train_aug SBD's benchmark.tgz or a folder SegmentationClassAug with another --source"
)
_ENDINGS = {
    "JPEGImages": ".jpg",
    "SegmentationClass": ".png",
    "SegmentationClassAug": ".png",
    "Segmentation": ".txt",
    "cls": ".mat",
}


@dataclass(frozen=True)
class _Found:
    """The files that make up the dataset, by sample name; `extra` are the labels that VOC itself does not have."""

    train: list[str]
    val: list[str]
    pictures: dict[str, File]
    labels: dict[str, LabelFile]
    extra: dict[str, LabelFile]
    extra_names: set[str] | None
    notes: tuple[str, ...]

    @property
    def splits(self) -> dict[str, list[str]]:
        splits = {"train": self.train, "val": self.val, "trainval": sorted({*self.train, *self.val})}
        if self.extra_names is not None:
            splits["train_aug"] = sorted((self.extra_names | set(self.train)) - set(self.val))
        return splits


def open_voc(paths: Sequence[Path]) -> Pairs:
    """Pair pictures with labels. Raises InputError where VOC's own part is missing."""
    files = open_files(paths, _is_wanted, ("JPEGImages", "SegmentationClass", "SegmentationClassAug"))
    found = _find(files)
    splits = found.splits
    every = sorted({name for names in splits.values() for name in names})
    labels = found.extra | found.labels
    problems = [*_incomplete(files, found, every), *_not_official(splits)]
    official = all(list_md5(splits[split]) == OFFICIAL_MD5[split] for split in ("train", "val"))
    notes = [] if official else ["the lists of train and val are not the official ones, so nothing was counted against those"]
    return Pairs(
        name="voc",
        rule="voc2012-and-sbd-voc-wins/1",
        origin=f"{files.names} in the official layout",
        classes=CLASSES,
        splits=splits,
        images={name: Picture(name, "image", found.pictures[name], ("RGB",)) for name in every if name in found.pictures},
        labels={name: labels[name] for name in every if name in labels},
        instances={},
        groups=None,
        notes=(*files.notes, *found.notes, *notes),
        problems=tuple(problems),
    )


def list_md5(names: Sequence[str]) -> str:
    """MD5 of the sorted names, each ended by a newline."""
    return hashlib.md5("".join(f"{name}\n" for name in sorted(names)).encode(), usedforsecurity=False).hexdigest()


def _is_wanted(name: str) -> bool:
    path = PurePosixPath(name)
    if path.name in ("train.txt", "val.txt") and path.parent.name == "dataset":
        return True
    return path.suffix == _ENDINGS.get(path.parent.name)


def _find(files: Files) -> _Found:
    root = files.folder("JPEGImages")
    lists = {} if root is None else {split: files.find(root, f"ImageSets/Segmentation/{split}.txt") for split in ("train", "val")}
    train, val = lists.get("train"), lists.get("val")
    if root is None or train is None or val is None:
        absent = "JPEGImages" if root is None else "ImageSets/Segmentation/{train,val}.txt beside JPEGImages"
        raise InputError(f"the VOC source {files.given} has no {absent}", LAYOUT)
    extra, extra_names, notes = _find_extra(files)
    return _Found(
        train=sorted(_names(train)),
        val=sorted(_names(val)),
        pictures=_by_stem(files, f"{root}/JPEGImages"),
        labels=_index_labels(_by_stem(files, f"{root}/SegmentationClass"), "P"),
        extra=extra,
        extra_names=extra_names,
        notes=notes,
    )


def _find_extra(files: Files) -> tuple[dict[str, LabelFile], set[str] | None, tuple[str, ...]]:
    """Labels beyond VOC's, and the names they are for: SBD's own files, or else a folder that somebody made of them."""
    sbd, folder = files.folder("cls"), files.folder("SegmentationClassAug")
    if sbd is not None:
        lists = [files.find(sbd, f"{split}.txt") for split in ("train", "val")]
        present = [file for file in lists if file is not None]
        if len(present) != 2:
            raise InputError(f"the SBD part of {files.given} has no train.txt and val.txt beside cls", LAYOUT)
        notes = () if folder is None else ("SegmentationClassAug was not read: SBD's own files are there",)
        labels: dict[str, LabelFile] = {name: SbdLabel(name, file) for name, file in _by_stem(files, f"{sbd}/cls").items()}
        return labels, {name for file in present for name in _names(file)}, notes
    if folder is not None:
        labels = _index_labels(_by_stem(files, f"{folder}/SegmentationClassAug"), "P", "L")
        return labels, set(labels), ()
    return {}, None, ("train_aug is left out: neither SBD nor SegmentationClassAug was given",)


def _index_labels(files: dict[str, File], *modes: str) -> dict[str, LabelFile]:
    return {name: IndexLabel(Picture(name, "label", file, modes), IDS) for name, file in files.items()}


def _names(file: File) -> list[str]:
    return read_list(file, lambda line: line.split()[0])[0]


def _by_stem(files: Files, folder: str) -> dict[str, File]:
    return {PurePosixPath(name).stem: file for name, file in files.under(folder.lstrip("/")).items() if "/" not in name}


def _incomplete(files: Files, found: _Found, every: Sequence[str]) -> list[Finding]:
    """A finding for each name of a list that has no picture or no label."""
    findings = []
    own = {*found.train, *found.val}
    for name in every:
        where = "SegmentationClass" if name in own else "SBD's cls or SegmentationClassAug"
        if name not in found.pictures:
            problem = f"sample '{name}' is listed, but 'JPEGImages/{name}.jpg' is missing from {files.given}"
            findings.append(Finding(name, problem, "get the archive again"))
        if name not in found.labels and (name in own or name not in found.extra):
            problem = f"sample '{name}' is listed, but has no label in {where} of {files.given}"
            findings.append(Finding(name, problem, "get the archive again"))
    return findings


def _not_official(splits: dict[str, list[str]]) -> list[Finding]:
    """VOC's official lists must lead to the official train_aug: anything else is no "10,582" that others can compare with."""
    expected = all(list_md5(splits[split]) == OFFICIAL_MD5[split] for split in ("train", "val"))
    if not expected or "train_aug" not in splits or list_md5(splits["train_aug"]) == OFFICIAL_MD5["train_aug"]:
        return []
    problem = f"train_aug has {len(splits['train_aug'])} pictures that are not the official 10582"
    return [Finding("", problem, "give the whole of SBD (benchmark.tgz), or of SegmentationClassAug")]
