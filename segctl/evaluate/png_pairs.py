"""PNGs of class ids, from any framework: found under two folders, paired by stem, and read without conversion. Needs no torch."""

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segctl.data.files.archives import PlainFile
from segctl.data.files.pictures import read_label
from segctl.errors import InputError

Ids = NDArray[np.integer]
TruthKind = Literal["labelIds", "labelTrainIds", "plain"]
"""What ids the names of ground-truth files announce; `plain` for names that announce nothing."""

STEM_ENDINGS = (
    "_gtFine_labelIds",
    "_gtFine_labelTrainIds",
    "_gtCoarse_labelIds",
    "_gtCoarse_labelTrainIds",
    "_leftImg8bit",
    "_mask",
    "_sat",
)
"""Endings of a stem that are not part of the image's name, in Cityscapes, DeepGlobe and elsewhere."""

SHOWN = 3


@dataclass(frozen=True)
class PngPair:
    """A prediction and its ground truth. instances: the instance map beside the ground truth, if there is one."""

    name: str
    prediction: Path
    truth: Path
    instances: Path | None = None


@dataclass(frozen=True)
class PngPairs:
    """The pairs, sorted by name, and what ids the names of the ground truth announce."""

    pairs: tuple[PngPair, ...]
    kind: TruthKind


def pair_pngs(predictions: Path, truths: Path) -> PngPairs:
    """Pair the PNGs under two folders by stem, or by their path below the folder where stems repeat.

    Raises InputError where a folder has no PNG, a file has no partner, or two files have one image's name.
    """
    truth_files, kind = _choose(_pngs(truths, "--gt"))
    prediction_files = _pngs(predictions, "--pred")
    by_path = len({_stem(path) for path in truth_files}) < len(truth_files)
    found, wanted = _keyed(prediction_files, predictions, by_path), _keyed(truth_files, truths, by_path)
    _require_partners(wanted.keys() - found.keys(), wanted, "ground truth", "prediction", predictions)
    _require_partners(found.keys() - wanted.keys(), found, "prediction", "ground truth", truths)
    pairs = [PngPair(name, found[name], wanted[name], _instances_of(wanted[name])) for name in sorted(wanted)]
    return PngPairs(tuple(pairs), kind)


def read_ids(path: Path) -> Ids:
    """The ids uint8 or uint16 (H, W) of a one-channel picture. Raises InputError naming the file."""
    return read_label(PlainFile(str(path), path))


def _pngs(folder: Path, option: str) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{option} '{folder}' is not a folder", "give the folder that holds the PNGs")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".png" and not path.name.startswith("."))
    if not found:
        raise InputError(f"{option} '{folder}' holds no PNG", "give a folder of PNGs of class ids")
    return found


def _choose(truths: list[Path]) -> tuple[list[Path], TruthKind]:
    """The files to score: of the four kinds of a Cityscapes ground truth the labels, else all files."""
    kinds: tuple[TruthKind, TruthKind] = ("labelIds", "labelTrainIds")
    for kind in kinds:
        if chosen := [path for path in truths if path.stem.endswith(f"_{kind}")]:
            return chosen, kind
    return [path for path in truths if not path.stem.endswith(("_instanceIds", "_color"))], "plain"


def _stem(path: Path) -> str:
    """The image's name: the file's stem without a known ending."""
    return next((path.stem.removesuffix(ending) for ending in STEM_ENDINGS if path.stem.endswith(ending)), path.stem)


def _keyed(paths: list[Path], folder: Path, by_path: bool) -> dict[str, Path]:
    """The files by image name. Raises InputError where two files have one name."""
    keyed: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        below = path.relative_to(folder).parent
        keyed[(below / _stem(path)).as_posix() if by_path else _stem(path)].append(path)
    for name, several in keyed.items():
        if len(several) > 1:
            one, other = (path.relative_to(folder) for path in several[:2])
            raise InputError(f"'{one}' and '{other}' in '{folder}' are both the image '{name}'", "keep one file for each image")
    return {name: several[0] for name, several in keyed.items()}


def _require_partners(lonely: set[str], files: dict[str, Path], what: str, partner: str, where: Path) -> None:
    if lonely:
        shown = sorted(lonely)[:SHOWN]
        names = ", ".join(f"'{files[name].name}'" for name in shown) + (", ..." if len(lonely) > SHOWN else "")
        raise InputError(
            f"{len(lonely)} of {len(files)} files of {what} have no {partner} in '{where}': {names}",
            "files are paired by name without ending; add the missing files or remove the others",
        )


def _instances_of(truth: Path) -> Path | None:
    path = truth.with_name(re.sub(r"_label(Train)?Ids$", "_instanceIds", truth.stem) + truth.suffix)
    return path if path != truth and path.is_file() else None
