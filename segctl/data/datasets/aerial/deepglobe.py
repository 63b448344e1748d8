"""DeepGlobe Land Cover 2018, 6 classes: satellite pictures of 2448×2448.

    train/ID_sat.jpg  train/ID_mask.png      or the same files in any folders, such as images/ and masks/

Masks are RGB. Some values are off, so the dataset's makers say that a channel is on from 128 upwards; the three bits then name
the class. Unknown (black) and pure red, which is not a class, are ignored; red pixels are counted. Only the 803 pictures of the
training set have public masks; `valid` and `test` are left out.
Splits: `all`, and five folds. The names `ID_sat.jpg` are sorted as strings; fold k validates on the k-th fifth (⌊n/5⌋ of them)
and trains on all others, so the last few are never validated. If the names are the official 803, known by their MD5, the list
of each fold must have its known MD5.
Source: the challenge's data page; folds as in zifuwanggg/JDTLosses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from segctl.data.classes import ClassRow, ClassTable
from segctl.data.datasets.pairs import PairReader, PictureLabel, Unknown, by_sample, list_md5, pair
from segctl.data.files.archives import File, Files, open_files
from segctl.data.files.pictures import DECODER, Picture
from segctl.data.findings import Finding
from segctl.data.source import Source
from segctl.errors import InputError
from segctl.ignored import IGNORED

CLASSES = ClassTable(
    (
        ClassRow("urban", 3, 0, (0, 255, 255)),
        ClassRow("agriculture", 6, 1, (255, 255, 0)),
        ClassRow("rangeland", 5, 2, (255, 0, 255)),
        ClassRow("forest", 2, 3, (0, 255, 0)),
        ClassRow("water", 1, 4, (0, 0, 255)),
        ClassRow("barren", 7, 5, (255, 255, 255)),
        ClassRow("unknown", 0, IGNORED, (0, 0, 0)),
    )
)
"""The raw id is 4 · red + 2 · green + blue, each 0 or 1."""
THRESHOLD = 128
RED = 4
FOLDS = 5
OFFICIAL_COUNT = 803
OFFICIAL_NAMES_MD5 = "9d2070029f8fed5935028b7fef7431ff"
FOLD_MD5 = (
    "629b0dd9a409e88f0f028c5d29036686",
    "e58dd51be1fbf60a9aebeba3f271f020",
    "4f8acfc34664030c5452715358f2c3d2",
    "b1d8e5992b9eafe32e3cd30e2890690b",
    "7f9390681a3df44b2ed445d65acccd5a",
)
LAYOUT = (
    "give the folder or the zip with train/ID_sat.jpg and train/ID_mask.png with --source (Kaggle or CodaLab, with an account)"
)
_UNLABELLED = frozenset({"valid", "validation", "test"})
_TRAIN_IDS = CLASSES.raw_to_train()[:8]


@dataclass(frozen=True)
class ThresholdRule:
    """Masks whose channels are on or off."""

    def train_ids(self, what: object, values: np.ndarray) -> tuple[np.ndarray, Unknown]:
        """Mask uint8 (H, W, 3) -> train ids uint8 (H, W), and the number of red pixels."""
        on = (values >= THRESHOLD).astype(np.uint8)
        codes = on[..., 0] << 2 | on[..., 1] << 1 | on[..., 2]
        return _TRAIN_IDS[codes], Unknown(int(np.count_nonzero(codes == RED)))


@dataclass(frozen=True)
class MaskedPictures:
    """The pictures of a DeepGlobe challenge that have masks: `names` in the order of the folds; both files of each by name."""

    files: Files
    names: list[str]
    pictures: Mapping[str, File]
    masks: Mapping[str, File]
    notes: tuple[str, ...]
    problems: tuple[Finding, ...]


def find_pairs(paths: Sequence[Path], layout: str) -> MaskedPictures:
    """Pair ID_sat.jpg with ID_mask.png in any folders. Raises InputError with `layout` as its hint if there are no masks."""
    files = open_files(paths, lambda name: name.endswith(("_sat.jpg", "_mask.png")))
    pictures, twice = by_sample(files.members, lambda path: _id_of(path, "_sat.jpg"))
    masks, more = by_sample(files.members, lambda path: _id_of(path, "_mask.png"))
    if not masks:
        raise InputError(f"the DeepGlobe source {files.given} has no masks (ID_mask.png)", layout)
    unlabelled = (pictures.keys() - masks.keys()) & _apart(files)
    pictures = {name: file for name, file in pictures.items() if name not in unlabelled}
    both, unpaired = pair(
        pictures,
        masks,
        lambda role, name: f"'{name}_{'mask.png' if role == 'label' else 'sat.jpg'}' is missing from {files.given}",
    )
    notes = (f"{len(unlabelled)} pictures of valid and test are left out: they have no masks",) if unlabelled else ()
    return MaskedPictures(files, sort_names(both), pictures, masks, notes, (*twice, *more, *unpaired))


def open_deepglobe(paths: Sequence[Path]) -> Source:
    """Pair images with masks. Raises InputError if there are no masks."""
    found = find_pairs(paths, LAYOUT)
    names, notes = found.names, list(found.notes)
    folds = folds_of(names)
    problems = list(found.problems)
    if names_md5(names) == OFFICIAL_NAMES_MD5:
        wrong = [fold for fold in range(FOLDS) if names_md5(folds[f"val_fold{fold}"]) != FOLD_MD5[fold]]
        problems += [Finding("", f"val_fold{fold} is not the official list", "report this as a bug") for fold in wrong]
    else:
        notes.append(f"these are {len(names)} pictures, not the official {OFFICIAL_COUNT}: the folds are cut by the same rule")
    return Source(
        name="deepglobe",
        rule="deepglobe-threshold-128-6-classes/1",
        origin=f"{found.files.names} in the official layout",
        decoder=DECODER,
        classes=CLASSES,
        splits={"all": names, **folds},
        samples=PairReader(
            images={name: Picture(name, "image", found.pictures[name], ("RGB",)) for name in names},
            labels={name: PictureLabel(Picture(name, "mask", found.masks[name], ("RGB",)), ThresholdRule()) for name in names},
        ),
        notes=(*found.files.notes, *notes),
        problems=tuple(problems),
    )


def sort_names(names: Sequence[str] | set[str]) -> list[str]:
    """In the order of the file names as strings, which puts 100694 before 10233, and 10452 before 1045."""
    return sorted(names, key=lambda name: f"{name}_sat.jpg")


def names_md5(names: Sequence[str]) -> str:
    """MD5 of the picture files' names, in the order of `names`."""
    return list_md5([f"{name}_sat.jpg" for name in names])


def _id_of(path: str, ending: str) -> str | None:
    return PurePosixPath(path).name.removesuffix(ending) if path.endswith(ending) else None


def _apart(files: Files) -> set[str]:
    """The ids of the pictures in folders of splits that have no public masks."""
    return {
        PurePosixPath(path).stem.rpartition("_")[0] for path in files.members if _UNLABELLED & set(PurePosixPath(path).parts[:-1])
    }


def folds_of(names: list[str]) -> dict[str, list[str]]:
    """Five folds of sorted names: fold k validates on the k-th fifth and trains on all others; none for fewer than five names."""
    fifth, splits = len(names) // FOLDS, {}
    for fold in range(FOLDS if fifth else 0):
        val = names[fifth * fold : fifth * (fold + 1)]
        held = set(val)
        splits[f"train_fold{fold}"] = [name for name in names if name not in held]
        splits[f"val_fold{fold}"] = val
    return splits
