"""Tumours in CT: the slices of LiTS (liver) and KiTS19 (kidney) that show one, windowed, with one band.

    lits     …/volume-N.nii, …/segmentation-N.nii of 131 patients, in any folders (the two training batches); axial slices are
             the third side
    kits     …/case_NNNNN/imaging.nii.gz, segmentation.nii.gz of 210 patients; axial slices are the first side

Label maps: 0 background, 1 organ, 2 tumour. Only slices with a tumour are samples, organ counts as background, and the set is
scored on tumours alone, also case by case (mIoU_G). Numbers are Hounsfield units; -60 to 140 (LiTS) and -200 to 300 (KiTS) become
0 to 255. A slice of another size becomes 512×512 (linear, labels nearest). A patient's slices stay in one split: `all`, and
five folds of patients. Officially 7,190 slices of LiTS (folds validate on 1320, 889, 459, 2278, 2244) and 5,712 of KiTS (952,
1255, 1418, 1471, 616).

Traps. Nothing says which slices show a tumour, so opening reads every label map, which takes minutes. Volumes of LiTS are stored
in different orientations; slices are taken as they are, columns first, as in the published experiments. `test-volume-N` and KiTS'
cases from 210 on have no labels and are left out; the labels of KiTS21 and KiTS23 are others. Terms: KiTS19 is CC BY-NC-SA 4.0;
those of LiTS are on its page (competitions.codalab.org/competitions/17094).
Source: zifuwanggg/JDTLosses at 68ce8ac, datas/prepare/prepare_lits_kits.py, datas/datasets/lits.py and kits.py.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from segctl.data.classes import ClassRow, ClassTable
from segctl.data.datasets.medical.folds import folds_by_case
from segctl.data.datasets.pairs import Label, LabelFile, PairReader
from segctl.data.files.archives import File, Files, open_files
from segctl.data.files.bands import BandScaling
from segctl.data.files.nifti import volume_of, volume_shape
from segctl.data.files.pictures import Decoded
from segctl.data.findings import Finding
from segctl.data.source import Source
from segctl.errors import InputError

CLASSES = ClassTable((ClassRow("background", None, 0, (0, 0, 0)), ClassRow("tumour", 2, 1, (255, 255, 255))), binary=True)
LAYOUT = "give the folders or archives that hold the volumes and their segmentations with --source"
CT_SIDE, TUMOUR = 512, 2


@dataclass(frozen=True)
class CtDataset:
    """How a dataset was published. file: pattern of paths with the groups `case`, and `kind` as in `kinds` (volume, label).

    axis: the side that counts axial slices.  window: the Hounsfield units that become 0 and 255.  cases, slices: the official
    numbers.
    """

    name: str
    file: str
    kinds: tuple[str, str]
    axis: int
    window: tuple[float, float]
    cases: int
    slices: int

    @property
    def scaling(self) -> BandScaling:
        return BandScaling(bands=(1,), of=1, dtype="int16", ranges=(self.window,))


LITS = CtDataset(
    "lits",
    r"(?:^|/)(?P<kind>volume|segmentation)-(?P<case>\d+)\.nii(?:\.gz)?$",
    ("volume", "segmentation"),
    2,
    (-60, 140),
    131,
    7190,
)
KITS = CtDataset(
    "kits",
    r"(?:^|/)case_(?P<case>\d+)/(?P<kind>imaging|segmentation)\.nii(?:\.gz)?$",
    ("imaging", "segmentation"),
    0,
    (-200, 300),
    210,
    5712,
)


@lru_cache(maxsize=2)  # neighbouring samples are slices of one volume and its segmentation
def _volume(file: File, axis: int) -> np.ndarray:
    """The numbers of a volume, rounded, int16 (slices, H, W)."""
    values = np.moveaxis(volume_of(file), axis, 0)
    return values if values.dtype == np.int16 else np.clip(np.rint(values), -(2**15), 2**15 - 1).astype(np.int16)


@dataclass(frozen=True)
class _Slice:
    """One slice of a file; what image and label of a sample have in common."""

    sample: str
    file: File
    index: int
    axis: int

    def numbers(self) -> np.ndarray:
        """int16 (H, W) as in the file. Raises InputError that names it."""
        return np.ascontiguousarray(_volume(self.file, self.axis)[self.index])  # type: ignore[arg-type]  # every kind of file can be hashed

    def size(self) -> tuple[int, int]:
        return CT_SIDE, CT_SIDE

    def digest(self) -> str:
        """Of the slice's numbers: a hash of the file would say the same of hundreds of samples."""
        return hashlib.sha256(self.numbers().tobytes()).hexdigest()


@dataclass(frozen=True)
class CtImage(_Slice):
    """The image of one sample. It takes the place of a `Picture` of the role "image"."""

    scaling: BandScaling
    role: str = field(default="image", init=False)

    def __str__(self) -> str:
        return f"the image of sample '{self.sample}' ({self.file.where}, slice {self.index})"

    def decode(self) -> Decoded:
        """uint8 (512, 512, 1)."""
        numbers = self.numbers()
        resized = cv2.resize(numbers.astype(np.float32), (CT_SIDE, CT_SIDE), interpolation=cv2.INTER_LINEAR)
        pixels = self.scaling.apply(np.rint(resized).astype(np.int16)[..., None])
        return Decoded(pixels, hashlib.sha256(numbers.tobytes()).hexdigest(), numbers.tobytes(), mode="bands")


@dataclass(frozen=True)
class CtLabel(_Slice):
    """The label of one sample, a LabelFile."""

    def __str__(self) -> str:
        return f"the label of sample '{self.sample}' ({self.file.where}, slice {self.index})"

    def decode(self) -> Label:
        """uint8 (512, 512): 1 on tumours."""
        numbers = self.numbers()
        resized = cv2.resize(numbers.astype(np.uint8), (CT_SIDE, CT_SIDE), interpolation=cv2.INTER_NEAREST)
        return Label((resized == TUMOUR).astype(np.uint8), hashlib.sha256(numbers.tobytes()).hexdigest(), numbers.nbytes)


def _open(dataset: CtDataset, paths: Sequence[Path]) -> Source:
    """The slices with a tumour of every patient. Raises InputError if there is no volume with its segmentation."""
    pattern = re.compile(dataset.file)
    files = open_files(paths, lambda path: pattern.search(path) is not None)
    volumes, labels, problems = _by_case(dataset, pattern, files)
    cases = sorted(volumes.keys() & labels.keys())
    if not cases:
        met = f"it has {len(volumes)} volumes and {len(labels)} segmentations"
        raise InputError(f"the source {files.given} has no volume of '{dataset.name}' with its segmentation: {met}", LAYOUT)
    notes = list(files.notes)
    if alone := len(volumes.keys() - labels.keys()):
        notes.append(f"{alone} volumes have no segmentation and are left out")
    for case in sorted(labels.keys() - volumes.keys()):
        problems.append(
            Finding(f"{case}", f"case {case} has its segmentation but no {dataset.kinds[0]}", "get the archive again")
        )
    images: dict[str, CtImage] = {}
    targets: dict[str, LabelFile] = {}
    samples: dict[str, list[str]] = {}
    for case in cases:
        name = f"{case:05d}" if dataset is KITS else f"{case:03d}"
        shown, problem = _tumour_slices(dataset, volumes[case], labels[case])
        if problem:
            problems.append(Finding(name, problem, "get the archive again"))
        samples[name] = [f"{name}_{index:04d}" for index in shown]
        for sample, index in zip(samples[name], shown, strict=True):
            images[sample] = CtImage(sample, volumes[case], index, dataset.axis, dataset.scaling)
            targets[sample] = CtLabel(sample, labels[case], index, dataset.axis)
    if (len(cases), len(images)) != (dataset.cases, dataset.slices):
        notes.append(
            f"these are {len(images)} slices of {len(cases)} cases, not the official {dataset.slices} of {dataset.cases}: "
            "the folds are cut by the same rule"
        )
    low, high = dataset.window
    return Source(
        name=dataset.name,
        rule=f"{dataset.name}-tumour-slices-window{low:g}:{high:g}-512/1",
        origin=f"{files.names} in the official layout",
        decoder="nibabel and cv2",
        classes=CLASSES,
        splits=folds_by_case(list(samples), samples),
        samples=PairReader(images=images, labels=targets),
        groups={sample: case for case, names in samples.items() for sample in names},
        notes=(*notes, dataset.scaling.in_words()),
        pixels=dataset.scaling,
        problems=tuple(problems),
    )


def _by_case(
    dataset: CtDataset, pattern: re.Pattern[str], files: Files
) -> tuple[Mapping[int, File], Mapping[int, File], list[Finding]]:
    """The volume and the segmentation of each patient, and a finding for each that occurs twice."""
    found: dict[str, dict[int, File]] = {kind: {} for kind in dataset.kinds}
    twice = []
    for path, file in files.members.items():
        if (match := pattern.search(path)) is not None:
            place, case = found[match["kind"]], int(match["case"])
            if case in place:
                twice.append(Finding(f"{case}", f"'{path}' and '{place[case].where}' are the same case", "keep one of them"))
            place[case] = file
    return found[dataset.kinds[0]], found[dataset.kinds[1]], twice


def _tumour_slices(dataset: CtDataset, volume: File, label: File) -> tuple[list[int], str]:
    """The slices of a segmentation that show a tumour, and what is wrong with it, or an empty text."""
    sides, wanted = volume_shape(label), volume_shape(volume)
    if sides != wanted or len(sides) != 3:
        got, like = ("×".join(map(str, shape)) for shape in (sides, wanted))
        return [], f"'{label.where}' has {got} numbers, wanted {like} as its volume, on three sides"
    values = _volume(label, dataset.axis)  # type: ignore[arg-type]
    if values.size and not 0 <= values.min() <= values.max() <= TUMOUR:
        wrong = values.min() if values.min() < 0 else values.max()
        return [], f"'{label.where}' holds the value {wrong}, wanted 0 to {TUMOUR}"
    return np.flatnonzero((values == TUMOUR).any((1, 2))).tolist(), ""


def open_lits(paths: Sequence[Path]) -> Source:
    """LiTS: liver tumours."""
    return _open(LITS, paths)


def open_kits(paths: Sequence[Path]) -> Source:
    """KiTS19: kidney tumours."""
    return _open(KITS, paths)
