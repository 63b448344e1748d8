"""PNGs that hold class ids, of any framework: found, paired by stem, and read as they are. Needs no torch."""

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
"""What the names of ground-truth files say that they hold; `plain` where they say nothing."""

ENDINGS = (
    "_gtFine_labelIds",
    "_gtFine_labelTrainIds",
    "_gtCoarse_labelIds",
    "_gtCoarse_labelTrainIds",
    "_leftImg8bit",
    "_mask",
    "_sat",
)
"""What a stem may end with and still be that image's: Cityscapes' and DeepGlobe's names."""

SHOWN = 3


@dataclass(frozen=True)
class MaskPair:
    """A prediction and its ground truth; `instances` is the instance map beside the ground truth, where there is one."""

    name: str
    prediction: Path
    truth: Path
    instances: Path | None = None


@dataclass(frozen=True)
class Matched:
    """Pairs in the order of their names, and what the ground truth's names say that it holds."""

    pairs: tuple[MaskPair, ...]
    kind: TruthKind


def match(predictions: Path, truths: Path) -> Matched:
    """Pair the PNGs under two folders by stem, or by path below the folder where stems repeat.

    Raises InputError where a folder has none, a file has no partner, or two files would be one image's.
    """
    truth_files, kind = _choose(_pngs(truths, "--gt"))
    prediction_files = _pngs(predictions, "--pred")
    by_path = len({_stem(path) for path in truth_files}) < len(truth_files)
    found, wanted = _keyed(prediction_files, predictions, by_path), _keyed(truth_files, truths, by_path)
    _require_partners(wanted.keys() - found.keys(), wanted, "ground truth", "prediction", predictions)
    _require_partners(found.keys() - wanted.keys(), found, "prediction", "ground truth", truths)
    pairs = [MaskPair(name, found[name], wanted[name], _instances_of(wanted[name])) for name in sorted(wanted)]
    return Matched(tuple(pairs), kind)


def read_ids(path: Path) -> Ids:
    """The ids in a one-channel picture, uint8 or uint16 (H, W). Raises InputError that names the file."""
    return read_label(PlainFile(str(path), path))


def _pngs(folder: Path, option: str) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"{option} '{folder}' is no folder", "give the folder of PNGs")
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".png" and not path.name.startswith("."))
    if not found:
        raise InputError(f"{option} '{folder}' holds no PNG", "predictions and ground truth are PNGs of class ids")
    return found


def _choose(truths: list[Path]) -> tuple[list[Path], TruthKind]:
    """The label files among a Cityscapes ground truth's four kinds; everything where names say nothing."""
    kinds: tuple[TruthKind, TruthKind] = ("labelIds", "labelTrainIds")
    for kind in kinds:
        if chosen := [path for path in truths if path.stem.endswith(f"_{kind}")]:
            return chosen, kind
    return [path for path in truths if not path.stem.endswith(("_instanceIds", "_color"))], "plain"


def _stem(path: Path) -> str:
    return next((path.stem.removesuffix(ending) for ending in ENDINGS if path.stem.endswith(ending)), path.stem)


def _keyed(paths: list[Path], folder: Path, by_path: bool) -> dict[str, Path]:
    keyed: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        below = path.relative_to(folder).parent
        keyed[(below / _stem(path)).as_posix() if by_path else _stem(path)].append(path)
    for name, several in keyed.items():
        if len(several) > 1:
            raise InputError(
                f"'{several[0].relative_to(folder)}' and '{several[1].relative_to(folder)}' in '{folder}' would both be '{name}'",
                "leave one picture for each image",
            )
    return {name: several[0] for name, several in keyed.items()}


def _require_partners(lonely: set[str], files: dict[str, Path], what: str, partner: str, where: Path) -> None:
    if lonely:
        shown = sorted(lonely)[:SHOWN]
        names = ", ".join(f"'{files[name].name}'" for name in shown) + (", ..." if len(lonely) > SHOWN else "")
        raise InputError(
            f"{len(lonely)} of {len(files)} files of {what} have no {partner} in '{where}': {names}",
            "files are paired by their names without ending; every one needs its partner",
        )


def _instances_of(truth: Path) -> Path | None:
    path = truth.with_name(re.sub(r"_label(Train)?Ids$", "_instanceIds", truth.stem) + truth.suffix)
    return path if path != truth and path.is_file() else None
