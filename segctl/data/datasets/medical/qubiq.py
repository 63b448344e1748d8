"""QUBIQ: one structure in one slice of each patient, outlined by three to seven experts.

    TASK/caseNN/image.nii.gz        TASK/caseNN/taskTT_segRR.nii.gz, 0 or 1, one file for each of R raters

Seven tasks are four sets of pictures: brain-growth (39 cases, 7 raters), brain-tumor (32 cases, 3 raters, tasks 1 to 3, four MR
sequences as four bands), kidney (24 cases, 3 raters) and prostate (55 cases, 6 raters, tasks 1 and 2). Cases of the training and
of the validation archive are numbered on, so give both. Each image is divided by its largest number, and image and label maps
become 256×256 (images linear, labels nearest), as in the published experiments.

A label here is every rater's map (see raters.py of segctl/data); networks train on their mean, and are scored on their majority
and, by BDice, on how many agree. Prostate's case 9 lacks a rater: as published, it is left out and case 55 stands in its place,
which decides the folds. Free registration at qubiq.grand-challenge.org.

Not known here: sizes and checksums of the archives. Files, sizes, counts and folds are as in zifuwanggg/JDTLosses at 68ce8ac,
datas/prepare/prepare_qubiq.py and datas/datasets/qubiq.py. Two differences: pictures keep 8 bits of a pixel, and a training view
is scaled for each rater by nearest neighbours, where that code scales the mean of the raters linearly.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from segctl.data.classes import ClassRow, ClassTable
from segctl.data.datasets.medical.folds import folds_by_case
from segctl.data.datasets.pairs import Label, PairReader, RatedLabel
from segctl.data.files.archives import File, open_files
from segctl.data.files.bands import BandScaling
from segctl.data.files.nifti import volume_of, volume_shape
from segctl.data.files.pictures import Decoded
from segctl.data.findings import Finding
from segctl.data.source import Source
from segctl.errors import InputError

CLASSES = ClassTable((ClassRow("background", 0, 0, (0, 0, 0)), ClassRow("structure", 1, 1, (255, 255, 255))), binary=True)
LAYOUT = "give both archives or folders, training and validation, that hold brain-growth/case01/image.nii.gz ..., with --source"
QUBIQ_SIDE = 256
CASES = {"brain-growth": 39, "brain-tumor": 32, "kidney": 24, "prostate": 55}
RATERS = {"brain-growth": 7, "brain-tumor": 3, "kidney": 3, "prostate": 6}
SEQUENCES = {"brain-growth": 1, "brain-tumor": 4, "kidney": 1, "prostate": 1}
STANDS_FOR = {("prostate", 55): 9}
"""The cases that the published folds count in place of another."""
_FILE = re.compile(r"(?:^|/)(?P<set>[a-z-]+)/case(?P<case>\d+)/(?:image|task(?P<task>\d+)_seg(?P<rater>\d+))\.nii(?:\.gz)?$")


def _plane(file: File, content: bytes | None = None) -> np.ndarray:
    """The numbers of a slice, (H, W, N), rows first. Raises InputError for a volume of several slices."""
    values = volume_of(file, content)
    height, width, bands = _sides(values.shape, file)
    return values.reshape(width, height, bands).transpose(1, 0, 2)


def _sides(shape: tuple[int, ...], file: File) -> tuple[int, int, int]:
    """(H, W, N) of a volume of this shape: columns come first in NIfTI; sides of 1 are left out."""
    sides = [*shape[:2], *(side for side in shape[2:] if side > 1)]
    if len(sides) not in (2, 3) or min(sides) < 1:
        raise InputError(f"'{file.where}' is a volume of {'×'.join(map(str, shape))}, wanted one slice", LAYOUT)
    return sides[1], sides[0], sides[2] if len(sides) == 3 else 1


@dataclass(frozen=True)
class SliceImage:
    """The image of one case. It takes the place of a `Picture` of the role "image"."""

    sample: str
    file: File
    bands: int
    role: str = field(default="image", init=False)

    def __str__(self) -> str:
        return f"the image of sample '{self.sample}' ({self.file.where})"

    def size(self) -> tuple[int, int]:
        """256×256. Raises InputError for a file that is not a slice of the wanted bands."""
        found = self.original()[2]
        if found != self.bands:
            raise InputError(f"{self} has {found} bands, wanted {self.bands}", LAYOUT)
        return QUBIQ_SIDE, QUBIQ_SIDE

    def original(self) -> tuple[int, int, int]:
        """(H, W, N) as the file has it."""
        return _sides(volume_shape(self.file), self.file)

    def decode(self) -> Decoded:
        """uint8 (256, 256, bands): divided by the largest number, times 255, scaled linearly, then rounded."""
        self.size()
        content = self.file.read()
        values = _plane(self.file, content).astype(np.float32)
        most = float(values.max())
        if not (np.isfinite(values).all() and most > 0):
            raise InputError(f"{self} has no number above 0, or some that are not finite", LAYOUT)
        resized = cv2.resize(255 * (values / most), (QUBIQ_SIDE, QUBIQ_SIDE), interpolation=cv2.INTER_LINEAR)
        scaled = resized.reshape(QUBIQ_SIDE, QUBIQ_SIDE, self.bands)
        pixels = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
        return Decoded(pixels, hashlib.sha256(content).hexdigest(), content, mode="bands")

    def digest(self) -> str:
        return hashlib.sha256(self.file.read()).hexdigest()


@dataclass(frozen=True)
class SliceLabel:
    """The label map of one rater, a LabelFile. image: what it must have the size of."""

    sample: str
    file: File
    image: SliceImage

    def __str__(self) -> str:
        return f"the label of sample '{self.sample}' ({self.file.where})"

    def size(self) -> tuple[int, int]:
        """256×256. Raises InputError for a map that has not its image's size."""
        found, wanted = _sides(volume_shape(self.file), self.file)[:2], self.image.original()[:2]
        if found != wanted:
            got, like = (f"{size[1]}×{size[0]}" for size in (found, wanted))
            raise InputError(f"{self} is {got} pixels, wanted {like} as its image", LAYOUT)
        return QUBIQ_SIDE, QUBIQ_SIDE

    def decode(self) -> Label:
        """uint8 (256, 256) of 0 and 1, by the nearest pixel. Raises InputError for other values."""
        self.size()
        content = self.file.read()
        values = _plane(self.file, content)[..., 0]
        if not np.isin(values, (0, 1)).all():
            wrong = values[~np.isin(values, (0, 1))].flat[0]
            raise InputError(f"{self} holds the value {wrong:g}, wanted 0 and 1", LAYOUT)
        label = cv2.resize(values.astype(np.uint8), (QUBIQ_SIDE, QUBIQ_SIDE), interpolation=cv2.INTER_NEAREST)
        return Label(label, hashlib.sha256(content).hexdigest(), len(content))

    def digest(self) -> str:
        return hashlib.sha256(self.file.read()).hexdigest()


def _open(name: str, task: int, paths: Sequence[Path]) -> Source:
    """Pair the images of a set with every rater's map of a task. Raises InputError if there is none."""
    images: dict[int, File] = {}
    maps: dict[int, dict[int, File]] = {}
    problems: list[Finding] = []
    files = open_files(paths, lambda path: (match := _FILE.search(path)) is not None and match["set"] == name)
    for path, file in files.members.items():
        match = _FILE.search(path)
        if match is None or (match["task"] is not None and int(match["task"]) != task):
            continue
        case = int(match["case"])
        place, key = (images, case) if match["task"] is None else (maps.setdefault(case, {}), int(match["rater"]))
        if key in place:
            problems.append(Finding(f"case{case:02d}", f"'{path}' occurs twice", "keep one of them"))
        place[key] = file
    if not images or not maps:
        wanted = f"image.nii.gz and task{task:02d}_segNN.nii.gz"
        raise InputError(f"the source {files.given} has no folders {name}/caseNN with {wanted}", LAYOUT)
    for case in sorted(images.keys() ^ maps.keys()):
        there, absent = ("image", f"task{task:02d}_segNN.nii.gz") if case in images else ("labels", "image.nii.gz")
        problem = f"case {case} of {name} has its {there} but no {absent}"
        problems.append(Finding(f"case{case:02d}", problem, "get the archive again"))
    notes = list(files.notes)
    scant = [case for case in sorted(images.keys() & maps.keys()) if len(maps[case]) != RATERS[name]]
    for case in scant:
        notes.append(f"case {case} is left out: it has {len(maps[case])} raters, not {RATERS[name]}")
    kept = sorted(images.keys() & maps.keys() - set(scant), key=lambda case: STANDS_FOR.get((name, case), case))
    official = CASES[name] - (name == "prostate")
    if len(kept) != official:
        notes.append(f"these are {len(kept)} cases, not the official {official}: the folds are cut by the same rule")
    names = {case: f"case{case:02d}" for case in kept}
    pictures = {names[case]: SliceImage(names[case], images[case], SEQUENCES[name]) for case in kept}
    return Source(
        name=_dataset(name, task),
        rule=f"qubiq-{name}-task{task}-256/1",
        origin=f"{files.names} in the official layout",
        decoder="nibabel and cv2",
        classes=CLASSES,
        splits=folds_by_case(list(names.values()), {sample: [sample] for sample in names.values()}),
        samples=PairReader(
            images=pictures,
            labels={
                names[case]: RatedLabel(
                    tuple(SliceLabel(names[case], maps[case][rater], pictures[names[case]]) for rater in sorted(maps[case]))
                )
                for case in kept
            },
            classes=CLASSES,
        ),
        notes=tuple(notes),
        pixels=BandScaling(
            bands=tuple(range(1, SEQUENCES[name] + 1)),
            of=SEQUENCES[name],
            dtype="uint8",
            ranges=((0.0, 255.0),) * SEQUENCES[name],
        ),
        problems=tuple(problems),
    )


def _dataset(name: str, task: int) -> str:
    return f"qubiq-{name}" if task == 1 else f"qubiq-{name}-{task}"


def open_brain_growth(paths: Sequence[Path]) -> Source:
    """Newborns' brains, myelinated white matter."""
    return _open("brain-growth", 1, paths)


def open_brain_tumor(paths: Sequence[Path]) -> Source:
    """Brain tumours, task 1."""
    return _open("brain-tumor", 1, paths)


def open_brain_tumor_2(paths: Sequence[Path]) -> Source:
    """Brain tumours, task 2."""
    return _open("brain-tumor", 2, paths)


def open_brain_tumor_3(paths: Sequence[Path]) -> Source:
    """Brain tumours, task 3."""
    return _open("brain-tumor", 3, paths)


def open_kidney(paths: Sequence[Path]) -> Source:
    """Kidneys."""
    return _open("kidney", 1, paths)


def open_prostate(paths: Sequence[Path]) -> Source:
    """Prostates, task 1."""
    return _open("prostate", 1, paths)


def open_prostate_2(paths: Sequence[Path]) -> Source:
    """Prostates, task 2."""
    return _open("prostate", 2, paths)
