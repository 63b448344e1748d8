"""PASCAL VOC 2012 with the extra labels of SBD, 21 classes.

    VOCdevkit/VOC2012/{JPEGImages/NAME.jpg, SegmentationClass/NAME.png, SegmentationObject/NAME.png}
    VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val}.txt
    benchmark_RELEASE/dataset/{cls/NAME.mat, train.txt, val.txt}        or        SegmentationClassAug/NAME.png

Splits: train, val, trainval and train_aug = (VOC train ∪ SBD train ∪ SBD val) − VOC val. If both have a label, the dataset
decides. `voc` takes VOC's: it was drawn with more care and marks the border between things with 255; SBD's has no border.
`voc-sbd-wins` takes SBD's wherever there is one, in train and val alike, as the code behind the JML scores does
(zifuwanggg/JDTLosses, datas/prepare/prepare_pascal_voc.py at 68ce8ac), so their scores are on its pixels.

VOC's labels are palette PNGs whose index is the class; SBD's are MATLAB files, which only scipy reads. SBD's own pictures repeat
VOC's and are not read. If VOC's two lists are the official ones, known by their MD5, train_aug must be the official one too:
10,582 names. SegmentationObject numbers the objects of an image; it is read for val, where mIoU_K scores its segments.
Source: the VOC 2012 development kit; Hariharan et al., "Semantic contours from inverse detectors".
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from segctl.data.classes import ClassRow, ClassTable, bit_color
from segctl.data.datasets.pairs import (
    IdMap,
    Label,
    LabelFile,
    NumberedInstances,
    PairReader,
    PictureLabel,
    check_ids,
    in_folder,
    list_md5,
    read_list,
)
from segctl.data.files.archives import File, Files, UnreadableError, open_files
from segctl.data.files.pictures import DECODER, Picture
from segctl.data.findings import Finding
from segctl.data.source import Source
from segctl.errors import InputError
from segctl.ignored import IGNORED

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
_IDS = IdMap.of(CLASSES, "use the labels as they were published")
_SBD_IDS = IdMap(bytes([*range(21), *[IGNORED] * 235]), bytes([*[1] * 21, *[0] * 235]), "get SBD's benchmark.tgz again")
OFFICIAL_MD5 = {
    "train": "223101833d3a86c8a837814f3e7afe88",
    "val": "5510db06bbb92848a0bf6109eba6d646",
    "train_aug": "215992f6fd958f89800449fdb4bbabe6",
}
"""MD5 of a split's sorted names, one a line."""
LAYOUT = (
    "give VOCtrainval_11-May-2012.tar or the folder VOCdevkit/VOC2012 with --source, "
    "and for train_aug SBD's benchmark.tgz or a folder SegmentationClassAug with another --source"
)
_ENDINGS = {
    "JPEGImages": ".jpg",
    "SegmentationClass": ".png",
    "SegmentationClassAug": ".png",
    "SegmentationObject": ".png",
    "Segmentation": ".txt",
    "cls": ".mat",
}


@dataclass(frozen=True)
class SbdLabel:
    """`GTcls.Segmentation` of one `cls/NAME.mat`: uint8 (H, W), 0 to 20, never 255."""

    sample: str
    file: File

    def __str__(self) -> str:
        return f"the label of sample '{self.sample}' ({self.file.where})"

    def size(self) -> None:
        """None: only decoding the whole file tells."""
        return

    def digest(self) -> str:
        return hashlib.sha256(self._content()).hexdigest()

    def decode(self) -> Label:
        content = self._content()
        try:
            from scipy.io import loadmat
        except ImportError as error:
            raise InputError(
                "SBD's .mat files cannot be read without scipy",
                "pip install scipy, or give a folder SegmentationClassAug instead",
            ) from error
        try:
            array = np.asarray(loadmat(io.BytesIO(content), variable_names=["GTcls"])["GTcls"][0]["Segmentation"][0])
        except Exception as error:  # scipy raises anything for a damaged file
            raise self._unreadable("it is not a MATLAB file of SBD") from error
        if array.dtype != np.uint8 or array.ndim != 2:
            raise self._unreadable(f"it holds {array.dtype} of {array.ndim} dimensions, wanted uint8 of 2")
        array = np.ascontiguousarray(array)  # MATLAB stores columns, OpenCV reads rows
        check_ids(str(self), array, _SBD_IDS)
        return Label(array, hashlib.sha256(content).hexdigest(), len(content))

    def _content(self) -> bytes:
        try:
            return self.file.read()
        except (OSError, UnreadableError) as error:
            raise self._unreadable(str(error)) from error

    def _unreadable(self, reason: str) -> InputError:
        return InputError(f"{self} cannot be read: {reason}", "get SBD's benchmark.tgz again")


@dataclass(frozen=True)
class _Extra:
    """Labels beyond VOC's own, by sample, and the names that train_aug takes from them; None if nothing was given."""

    labels: Mapping[str, LabelFile]
    names: set[str] | None
    note: str = ""


def open_voc_sbd_wins(paths: Sequence[Path]) -> Source:
    """`open_voc` with SBD's label wherever there is one. Raises InputError if no labels of SBD are given, too."""
    return open_voc(paths, sbd_wins=True)


def open_voc(paths: Sequence[Path], *, sbd_wins: bool = False) -> Source:
    """Find image and label of every listed name. Raises InputError if VOC's own part is missing."""
    files = open_files(paths, _is_wanted, ("JPEGImages", "SegmentationClass", "SegmentationClassAug", "SegmentationObject"))
    root = files.folder("JPEGImages")
    train_list, val_list = (files.find(root or "", f"ImageSets/Segmentation/{split}.txt") for split in ("train", "val"))
    if root is None or train_list is None or val_list is None:
        absent = "JPEGImages" if root is None else "ImageSets/Segmentation/{train,val}.txt beside JPEGImages"
        raise InputError(f"the VOC source {files.given} has no {absent}", LAYOUT)
    train, val = sorted(_names(train_list)), sorted(_names(val_list))
    extra = _find_extra(files)
    if sbd_wins and extra.names is None:
        raise InputError(f"the VOC source {files.given} has no labels of SBD, which win in 'voc-sbd-wins'", LAYOUT)
    splits = {"train": train, "val": val, "trainval": sorted({*train, *val})}
    if extra.names is not None:
        splits["train_aug"] = sorted((extra.names | set(train)) - set(val))
    every = sorted({name for names in splits.values() for name in names})
    pictures = in_folder(files, f"{root}/JPEGImages", ".jpg")
    own_labels = _picture_labels(in_folder(files, f"{root}/SegmentationClass", ".png"), "P")
    labels: dict[str, LabelFile] = {**own_labels, **extra.labels} if sbd_wins else {**extra.labels, **own_labels}
    own_names = set(splits["trainval"])
    problems: list[Finding] = []
    for name in every:
        own = name in own_names
        if name not in pictures:
            problem = f"sample '{name}' is listed, but 'JPEGImages/{name}.jpg' is missing from {files.given}"
            problems.append(Finding(name, problem, "get the archive again"))
        if name not in labels or (own and not sbd_wins and name not in own_labels):
            where = "SegmentationClass" if own else "SBD's cls or SegmentationClassAug"
            problem = f"sample '{name}' is listed, but has no label in {where} of {files.given}"
            problems.append(Finding(name, problem, "get the archive again"))
    # SBD's labels show other objects than VOC's instance maps, so these go with VOC's labels alone.
    maps = {} if sbd_wins else in_folder(files, f"{root}/SegmentationObject", ".png")
    lacking = [name for name in val if name not in maps]
    if maps and lacking:
        problem = f"sample '{lacking[0]}' and {len(lacking) - 1} others of val have no map in SegmentationObject of {files.given}"
        problems.append(Finding(lacking[0], problem, "get the archive again, or leave SegmentationObject out"))
    official = all(list_md5(sorted(splits[split])) == OFFICIAL_MD5[split] for split in ("train", "val"))
    if official and "train_aug" in splits and list_md5(sorted(splits["train_aug"])) != OFFICIAL_MD5["train_aug"]:
        # VOC's official lists must lead to the official train_aug: scores on any other "train_aug" cannot be compared.
        problem = f"train_aug has {len(splits['train_aug'])} pictures that are not the official 10582"
        problems.append(Finding("", problem, "give the whole of SBD (benchmark.tgz), or of SegmentationClassAug"))
    notes = [extra.note] if extra.note else []
    if not official:
        notes.append("the lists of train and val are not the official ones, so train_aug was not compared with the official one")
    return Source(
        name="voc-sbd-wins" if sbd_wins else "voc",
        rule=f"voc2012-and-sbd-{'sbd' if sbd_wins else 'voc'}-wins/1",
        origin=f"{files.names} in the official layout",
        decoder=DECODER,
        classes=CLASSES,
        splits=splits,
        samples=PairReader(
            images={name: Picture(name, "image", pictures[name], ("RGB",)) for name in every if name in pictures},
            labels={name: labels[name] for name in every if name in labels},
            instances={
                name: NumberedInstances(Picture(name, "instance map", maps[name], ("P", "L"))) for name in val if name in maps
            },
        ),
        notes=(*files.notes, *notes),
        problems=tuple(problems),
    )


def _is_wanted(name: str) -> bool:
    path = PurePosixPath(name)
    if path.name in ("train.txt", "val.txt") and path.parent.name == "dataset":
        return True
    return path.suffix == _ENDINGS.get(path.parent.name)


def _find_extra(files: Files) -> _Extra:
    """SBD's own files, or else a folder that somebody made of them."""
    sbd, folder = files.folder("cls"), files.folder("SegmentationClassAug")
    if sbd is not None:
        lists = [file for split in ("train", "val") if (file := files.find(sbd, f"{split}.txt")) is not None]
        if len(lists) != 2:
            raise InputError(f"the SBD part of {files.given} has no train.txt and val.txt beside cls", LAYOUT)
        labels = {name: SbdLabel(name, file) for name, file in in_folder(files, f"{sbd}/cls", ".mat").items()}
        note = "" if folder is None else "SegmentationClassAug was not read: SBD's own files are there"
        return _Extra(labels, {name for file in lists for name in _names(file)}, note)
    if folder is not None:
        found = _picture_labels(in_folder(files, f"{folder}/SegmentationClassAug", ".png"), "P", "L")
        return _Extra(found, set(found))
    return _Extra({}, None, "train_aug is left out: neither SBD nor SegmentationClassAug was given")


def _picture_labels(files: dict[str, File], *modes: str) -> dict[str, PictureLabel]:
    return {name: PictureLabel(Picture(name, "label", file, modes), _IDS) for name, file in files.items()}


def _names(file: File) -> list[str]:
    return read_list(file, lambda line: line.split()[0])[0]
