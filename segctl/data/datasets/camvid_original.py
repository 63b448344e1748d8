"""CamVid as it was first published: 701 pictures of 960×720 and masks in 32 colours."""

import re
from pathlib import PurePosixPath

from segctl.data.classes import IGNORED, ClassTable
from segctl.data.datasets.label_files import Color, ColorLabel, ColorMap
from segctl.data.datasets.pairs import Pairs, unpaired
from segctl.data.files.archives import Files
from segctl.data.files.entries import File
from segctl.data.files.pictures import Picture

COUNTS = {"train": 367, "val": 101, "test": 233}
COLORS: tuple[tuple[str, Color, str], ...] = (
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
"""Name, colour and the class of the 11 that it is joined to (label_colors.txt of the release; the joining is SegNet's)."""


def is_original(files: Files) -> bool:
    return any(name.endswith("_L.png") for name in files.members)


def open_original(files: Files, classes: ClassTable) -> Pairs:
    """Pair pictures with `_L.png` masks, wherever they lie, and split them by name."""
    pictures, masks = _by_stem(files)
    problems = unpaired(pictures, masks, lambda role, name: _missing(files, role, name))
    names = sorted(pictures.keys() & masks.keys())
    splits = {split: [name for name in names if split_of(name) == split] for split in COUNTS}
    splits = {split: listed for split, listed in splits.items() if listed}
    notes = [
        f"{split} has {len(splits.get(split, []))} of the official {count} pictures"
        for split, count in COUNTS.items()
        if len(splits.get(split, [])) != count
    ]
    if len(splits) == len(COUNTS):
        splits["trainval"] = splits["train"] + splits["val"]
    train_ids = {row.name: row.train_id for row in classes.rows} | {"Void": IGNORED}
    colors = ColorMap.of(
        {color: train_ids[target] for _, color, target in COLORS}, "use the masks as they were published: resizing blends colours"
    )
    return Pairs(
        name="camvid",
        rule="camvid-960x720-32-colours-to-11-classes/1",
        origin=f"{files.names} in the 960×720 layout",
        classes=classes,
        splits=splits,
        images={name: Picture(name, "image", pictures[name], ("RGB",)) for name in names},
        labels={name: ColorLabel(Picture(name, "mask", masks[name], ("RGB",)), colors) for name in names},
        instances={},
        groups={name: name.split("_")[0] for name in names},
        notes=(*files.notes, *notes),
        problems=tuple(problems),
    )


def _by_stem(files: Files) -> tuple[dict[str, File], dict[str, File]]:
    pictures: dict[str, File] = {}
    masks: dict[str, File] = {}
    for path, file in files.members.items():
        if path.endswith("_L.png"):
            masks[PurePosixPath(path).stem.removesuffix("_L")] = file
        elif path.endswith(".png"):
            pictures[PurePosixPath(path).stem] = file
    return pictures, masks


def _missing(files: Files, role: str, name: str) -> str:
    return f"'{name}{'_L' if role == 'label' else ''}.png' is missing from {files.given}"


def split_of(name: str) -> str:
    """By drive and frame, as the 480×360 release cuts them: one stretch of 0016E5 is val, the second half of 0001TP test."""
    drive, _, frame = name.partition("_")
    number = int("".join(re.findall(r"\d", frame)) or 0)
    if drive == "Seq05VD" or (drive == "0001TP" and number > 8520):
        return "test"
    return "val" if drive == "0016E5" and 7959 <= number <= 8159 else "train"
