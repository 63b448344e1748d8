"""PASCAL Context, the 59 most frequent classes: 4,998 training and 5,105 validation pictures of VOC 2010.

    VOC2010/JPEGImages/NAME.jpg    VOC2010/SegmentationClassContext/NAME.png
    VOC2010/ImageSets/SegmentationContext/{train,val}.txt

The annotations were published as one JSON of 459 ids that only the package `detail` reads. Its converters write index maps: the
59 ids in ascending order, which is alphabetical, are 1 to 59, and 0 is every other class. 0 becomes 255, so networks have 59
classes. (A configuration that keeps 0 as a class and still builds 59 drops the last one, wood.) The lists in use name 4,996 and
5,104 pictures.
Source: Mottaghi et al., "The Role of Context", CVPR 2014; open-mmlab/mmsegmentation at 2b6a1aa,
tools/dataset_converters/pascal_context.py (layout, order of ids).
"""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from segctl.data.classes import ClassRow, ClassTable, bit_color
from segctl.data.datasets.pairs import IdMap, PairReader, PictureLabel, in_folder, read_list
from segctl.data.files.archives import open_files
from segctl.data.files.pictures import DECODER, Picture
from segctl.data.findings import Finding
from segctl.data.source import Source
from segctl.errors import InputError
from segctl.ignored import IGNORED

CONTEXT_NAMES = tuple(
    word
    for line in (
        "aeroplane bag bed bedclothes bench bicycle bird boat book bottle building bus cabinet car cat ceiling chair cloth",
        "computer cow cup curtain dog door fence floor flower food grass ground horse keyboard light motorbike mountain mouse",
        "person plate platform pottedplant road rock sheep shelves sidewalk sign sky snow sofa table track train tree truck",
        "tvmonitor wall water window wood",
    )
    for word in line.split()
)
CLASSES = ClassTable(
    (
        ClassRow("other", 0, IGNORED, (0, 0, 0)),
        *(ClassRow(name, index, index - 1, bit_color(index)) for index, name in enumerate(CONTEXT_NAMES, start=1)),
    )
)
LAYOUT = (
    "give VOC2010 with SegmentationClassContext and ImageSets/SegmentationContext, as mmsegmentation's pascal_context.py writes "
    "them, with --source"
)
OFFICIAL = {"train": (4996, 4998), "val": (5104, 5105)}
"""How many pictures each split has: in the lists that are in use, and as published."""
_FOLDERS = ("JPEGImages", "SegmentationClassContext", "SegmentationContext")
_IDS = IdMap.of(CLASSES, "make the maps of 59 classes with mmsegmentation's pascal_context.py again")


def open_pascal_context(paths: Sequence[Path]) -> Source:
    """Find image and label of every listed name. Raises InputError if a part of the dataset is missing."""
    files = open_files(paths, lambda path: PurePosixPath(path).parent.name in _FOLDERS)
    roots = {folder: files.folder(folder) for folder in _FOLDERS}
    if (absent := next((folder for folder, root in roots.items() if root is None), None)) is not None:
        raise InputError(f"the source {files.given} has no folder {absent}", LAYOUT)
    pictures, labels, lists = (
        in_folder(files, f"{roots[folder]}/{folder}", ending)
        for folder, ending in zip(_FOLDERS, (".jpg", ".png", ".txt"), strict=True)
    )
    splits: dict[str, list[str]] = {}
    problems: list[Finding] = []
    notes: list[str] = []
    for split, official in OFFICIAL.items():
        if split not in lists:
            raise InputError(f"the source {files.given} has no ImageSets/SegmentationContext/{split}.txt", LAYOUT)
        names, repeated = read_list(lists[split], lambda line: line.split()[0])
        splits[split] = sorted(names)
        problems += repeated
        if len(names) not in official:
            notes.append(f"{split} has {len(names)} pictures, not the official {official[1]}")
        for name in splits[split]:
            for kind, there, path in (
                ("image", pictures, f"JPEGImages/{name}.jpg"),
                ("label", labels, f"{_FOLDERS[1]}/{name}.png"),
            ):
                if name not in there:
                    problem = f"the {kind} of sample '{name}' is listed, but '{path}' is missing from {files.given}"
                    problems.append(Finding(name, problem, "get the archive again, or make the label maps again"))
        splits[split] = [name for name in splits[split] if name in pictures and name in labels]
    every = {name for names in splits.values() for name in names}
    return Source(
        name="pascal-context",
        rule="pascal-context-59-classes/1",
        origin=f"{files.names} in the layout of VOC 2010",
        decoder=DECODER,
        classes=CLASSES,
        splits=splits,
        samples=PairReader(
            {name: Picture(name, "image", pictures[name], ("RGB",)) for name in every},
            {name: PictureLabel(Picture(name, "label", labels[name], ("L", "P")), _IDS) for name in every},
        ),
        notes=(*files.notes, *notes),
        problems=tuple(problems),
    )
