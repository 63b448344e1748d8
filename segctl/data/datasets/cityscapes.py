"""Cityscapes, 19 classes, as the official zips hold it.

    leftImg8bit/{train,val,test,train_extra}/CITY/NAME_leftImg8bit.png
    gtFine/{train,val,test}/CITY/NAME_gtFine_{labelIds,instanceIds}.png      gtCoarse/train_extra/CITY/NAME_gtCoarse_labelIds.png

Train ids come from labelIds through the class table; `…_labelTrainIds.png`, which people make with a script, is taken where
labelIds are missing. Splits without pictures, and a test split without labels, are left out with a note; the labels of test
hold only void. Instance maps are kept for val, where instances are scored.
Source: mcordts/cityscapesScripts, README and helpers/labels.py.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segctl.data.classes import IGNORED
from segctl.data.datasets.cityscapes_classes import CLASSES
from segctl.data.datasets.label_files import IdMap, IndexLabel
from segctl.data.datasets.pairs import InstanceMap, Pairs, unpaired
from segctl.data.files.archives import Files, open_files
from segctl.data.files.entries import File
from segctl.data.files.pictures import Picture
from segctl.data.findings import Finding
from segctl.errors import InputError

COUNTS = {"train": 2975, "val": 500, "test": 1525, "train_extra": 19998}
LAYOUT = (
    "give leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip, each with --source, or the folder that holds leftImg8bit/ "
    "and gtFine/"
)
_ADVICE = "use the labels of gtFine_trainvaltest.zip"
LABEL_IDS = IdMap.of(CLASSES, _ADVICE)
TRAIN_IDS = IdMap(
    bytes([*range(19), *[IGNORED] * 237]), bytes([*[1] * 19, *[0] * 236, 1]), "make the labelTrainIds again, or give labelIds"
)
_NAME = re.compile(
    r"(?P<split>train|val|test|train_extra)/[^/]+/(?P<name>[^/]+?)_"
    r"(?:leftImg8bit|gt(?:Fine|Coarse)_(?P<kind>labelIds|labelTrainIds|instanceIds))\.png"
)


@dataclass(frozen=True)
class _Split:
    """The files of one split by sample name; `kinds` maps a kind of label to them."""

    split: str
    images: dict[str, File]
    kinds: dict[str, dict[str, File]]

    def label(self, name: str) -> IndexLabel:
        if name in self.kinds["labelIds"]:
            return IndexLabel(Picture(name, "label", self.kinds["labelIds"][name], ("L",)), LABEL_IDS)
        return IndexLabel(Picture(name, "label", self.kinds["labelTrainIds"][name], ("L",)), TRAIN_IDS)

    @property
    def labelled(self) -> set[str]:
        return self.kinds["labelIds"].keys() | self.kinds["labelTrainIds"].keys()


def open_cityscapes(paths: Sequence[Path]) -> Pairs:
    """Pair pictures with labels. Raises InputError where no split has both."""
    files = open_files(paths, lambda name: name.endswith(".png"), ("leftImg8bit", "gtFine", "gtCoarse"))
    found = {split: _find(files, split) for split in COUNTS}
    if not any(split.images for split in found.values()):
        raise InputError(
            f"the Cityscapes source {files.given} has no pictures (leftImg8bit/SPLIT/CITY/…_leftImg8bit.png)", LAYOUT
        )
    taken = [split for split in found.values() if split.images and split.labelled]
    if not taken:
        raise InputError(f"the Cityscapes source {files.given} has no labels (gtFine/SPLIT/CITY/…_gtFine_labelIds.png)", LAYOUT)
    problems = [finding for split in found.values() for finding in _problems(files, split)]
    names = {split.split: sorted(split.images.keys() & split.labelled) for split in taken}
    val = found["val"].kinds["instanceIds"]
    return Pairs(
        name="cityscapes",
        rule="cityscapes-labelids-to-19-classes/1",
        origin=f"{files.names} in the official layout",
        classes=CLASSES,
        splits=names,
        images={name: Picture(name, "image", found[split].images[name], ("RGB",)) for split in names for name in names[split]},
        labels={name: found[split].label(name) for split in names for name in names[split]},
        instances={name: _instances(name, val[name]) for name in names.get("val", []) if name in val},
        groups={name: name.split("_")[0] for listed in names.values() for name in listed},
        notes=(*files.notes, *(note for split in found.values() for note in _notes(split))),
        problems=tuple(problems),
    )


def _instances(name: str, file: File) -> InstanceMap:
    return InstanceMap(Picture(name, "instance map", file, ("I;16",)), LABEL_IDS.train)


def _find(files: Files, split: str) -> _Split:
    images: dict[str, File] = {}
    kinds: dict[str, dict[str, File]] = {"labelIds": {}, "labelTrainIds": {}, "instanceIds": {}}
    for marker in ("leftImg8bit", "gtCoarse" if split == "train_extra" else "gtFine"):
        root = files.folder(marker)
        below = {} if root is None else files.under(f"{root}/{marker}/{split}".lstrip("/"))
        for path, file in sorted(below.items()):
            match = _NAME.fullmatch(f"{split}/{path}")
            if match:
                target = images if match["kind"] is None else kinds[match["kind"]]
                target[match["name"]] = file
    return _Split(split, images, kinds)


def _problems(files: Files, split: _Split) -> list[Finding]:
    """Unpaired files. A whole split without pictures, and test without labels, are no problem: `_notes` names them."""
    if not split.images or (not split.labelled and split.split in ("test", "train_extra")):
        return []
    if not split.labelled:
        problem = f"the split '{split.split}' of {files.given} has {len(split.images)} pictures and no labels"
        return [Finding("", problem, LAYOUT)]
    kind = "gtCoarse" if split.split == "train_extra" else "gtFine"

    def missing(role: str, name: str) -> str:
        city = name.split("_")[0]
        folder, ending = ("leftImg8bit", "leftImg8bit") if role == "image" else (kind, f"{kind}_labelIds")
        return f"'{folder}/{split.split}/{city}/{name}_{ending}.png' is missing from {files.given}"

    return unpaired(split.images, split.labelled, missing)


def _notes(split: _Split) -> list[str]:
    if not split.images:
        return [] if split.split == "train_extra" else [f"{split.split} is left out: it has no pictures"]
    if not split.labelled:
        return [f"{split.split} is left out: it has no labels"]
    count, official = len(split.images), COUNTS[split.split]
    return [] if count == official else [f"{split.split} has {count} of the official {official} pictures"]
