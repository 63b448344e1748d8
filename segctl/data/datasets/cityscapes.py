"""Cityscapes, 19 classes, as the official zips hold it.

    leftImg8bit/{train,val,test,train_extra}/CITY/NAME_leftImg8bit.png
    gtFine/{train,val,test}/CITY/NAME_gtFine_{labelIds,instanceIds}.png      gtCoarse/train_extra/CITY/NAME_gtCoarse_labelIds.png

Train ids come from labelIds through the class table. `…_labelTrainIds.png`, which people make with a script, is read if labelIds
are missing. Splits without pictures are left out with a note, and so is a test split without labels; the published labels of
test hold only void. Instance maps are read only for val, the split on which instances are scored.
Source: mcordts/cityscapesScripts, README and helpers/labels.py.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from segctl.data.datasets.cityscapes_classes import CLASSES
from segctl.data.datasets.pairs import IdMap, InstanceMap, PairReader, PictureLabel, by_sample, pair
from segctl.data.files.archives import File, Files, open_files
from segctl.data.files.pictures import DECODER, Picture
from segctl.data.findings import Finding
from segctl.data.source import Source
from segctl.errors import InputError
from segctl.ignored import IGNORED

_OFFICIAL_COUNTS = {"train": 2975, "val": 500, "test": 1525, "train_extra": 19998}
LAYOUT = (
    "give leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, each with --source, or the folder that holds leftImg8bit/ "
    "and gtFine/"
)
LABEL_IDS = IdMap.of(CLASSES, "use the labels of gtFine_trainvaltest.zip")
TRAIN_IDS = IdMap(
    bytes([*range(19), *[IGNORED] * 237]), bytes([*[1] * 19, *[0] * 236, 1]), "make the labelTrainIds again, or give labelIds"
)
_KINDS = ("image", "labelIds", "labelTrainIds", "instanceIds")


@dataclass(frozen=True)
class _Split:
    """The files of one split, by sample: `files` maps each of _KINDS to them."""

    name: str
    files: dict[str, dict[str, File]]
    problems: list[Finding]

    @property
    def images(self) -> dict[str, File]:
        return self.files["image"]

    @property
    def labels(self) -> dict[str, File]:
        return self.files["labelTrainIds"] | self.files["labelIds"]

    def label(self, name: str) -> PictureLabel:
        ids = LABEL_IDS if name in self.files["labelIds"] else TRAIN_IDS
        return PictureLabel(Picture(name, "label", self.labels[name], ("L",)), ids)


def open_cityscapes(paths: Sequence[Path]) -> Source:
    """Pair images with labels. Raises InputError if no split has both."""
    files = open_files(paths, lambda name: name.endswith(".png"), ("leftImg8bit", "gtFine", "gtCoarse"))
    found = {split: _find(files, split) for split in _OFFICIAL_COUNTS}
    if not any(split.images for split in found.values()):
        raise InputError(
            f"the Cityscapes source {files.given} has no pictures (leftImg8bit/SPLIT/CITY/…_leftImg8bit.png)", LAYOUT
        )
    if not any(split.images and split.labels for split in found.values()):
        raise InputError(f"the Cityscapes source {files.given} has no labels (gtFine/SPLIT/CITY/…_gtFine_labelIds.png)", LAYOUT)
    splits: dict[str, list[str]] = {}
    images: dict[str, Picture] = {}
    labels: dict[str, PictureLabel] = {}
    problems: list[Finding] = []
    notes: list[str] = []
    for split in found.values():
        names, unpaired = _pair(files, split)
        problems += split.problems + unpaired
        notes += _notes(split)
        if split.images and split.labels:
            splits[split.name] = names
            images |= {name: Picture(name, "image", split.images[name], ("RGB",)) for name in names}
            labels |= {name: split.label(name) for name in names}
    maps = found["val"].files["instanceIds"]
    instances = {
        name: InstanceMap(Picture(name, "instance map", maps[name], ("I;16",)), LABEL_IDS.train)
        for name in splits.get("val", [])
        if name in maps
    }
    return Source(
        name="cityscapes",
        rule="cityscapes-labelids-to-19-classes/1",
        origin=f"{files.names} in the official layout",
        decoder=DECODER,
        classes=CLASSES,
        splits=splits,
        samples=PairReader(images, labels, instances),
        groups={name: name.split("_")[0] for name in images},
        notes=(*files.notes, *notes),
        problems=tuple(problems),
    )


def _labels_of(split: str) -> str:
    return "gtCoarse" if split == "train_extra" else "gtFine"


def _find(files: Files, split: str) -> _Split:
    found: dict[str, dict[str, File]] = {}
    problems: list[Finding] = []
    for kind in _KINDS:
        marker = "leftImg8bit" if kind == "image" else _labels_of(split)
        ending = "leftImg8bit" if kind == "image" else f"{marker}_{kind}"
        root = files.folder(marker)
        below = {} if root is None else files.under(f"{root}/{marker}/{split}".lstrip("/"))
        found[kind], twice = by_sample(dict(sorted(below.items())), partial(_sample_of, f"_{ending}.png"))
        problems += twice
    return _Split(split, found, problems)


def _sample_of(ending: str, path: str) -> str | None:
    """NAME of the path CITY/NAME<ending>; None for any other path."""
    match = re.fullmatch(rf"[^/]+/([^/]+){re.escape(ending)}", path)
    return match[1] if match else None


def _pair(files: Files, split: _Split) -> tuple[list[str], list[Finding]]:
    """The samples of a split, and a finding for each file without partner.

    A whole split without pictures, and test or train_extra without labels, are not a problem: `_notes` names them.
    """
    if not split.images or (not split.labels and split.name in ("test", "train_extra")):
        return [], []
    if not split.labels:
        problem = f"the split '{split.name}' of {files.given} has {len(split.images)} pictures and no labels"
        return [], [Finding("", problem, LAYOUT)]
    kind = _labels_of(split.name)

    def missing(role: str, name: str) -> str:
        city = name.split("_")[0]
        folder, ending = ("leftImg8bit", "leftImg8bit") if role == "image" else (kind, f"{kind}_labelIds")
        return f"'{folder}/{split.name}/{city}/{name}_{ending}.png' is missing from {files.given}"

    return pair(split.images, split.labels, missing)


def _notes(split: _Split) -> list[str]:
    if not split.images:
        return [] if split.name == "train_extra" else [f"{split.name} is left out: it has no pictures"]
    if not split.labels:
        return [f"{split.name} is left out: it has no labels"]
    count, official = len(split.images), _OFFICIAL_COUNTS[split.name]
    return [] if count == official else [f"{split.name} has {count} of the official {official} pictures"]
