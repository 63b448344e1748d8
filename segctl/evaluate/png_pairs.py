"""PNGs of class ids, from any framework: found under two folders, paired by stem, and read without conversion. Needs no torch."""

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from segctl.data.datasets.own.label_rule import OwnRule
from segctl.data.files.archives import PlainFile, files_below
from segctl.data.files.pictures import read_instance_ids, read_label_and_colors
from segctl.data.instance_ids import numbered_instances
from segctl.data.labels.certainty import CONFIDENCE, RECORD
from segctl.errors import ArgumentError, InputError

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

OTHER_ENDING = re.compile(
    r"[-_.](pred|preds|prediction|predictions|predicted|seg|segmentation|segmap|mask|masks|label|labels|labelids|labeltrainids|"
    r"trainids|ids|index|gt|gtfine|gtcoarse|groundtruth|out|output|result|results|leftimg8bit|image|img)$",
    re.IGNORECASE,
)
"""Endings that programs add to a stem, one after another. They are left out only where stems do not pair with them."""

AFFIX_IMAGES = 2
"""An unknown ending is left out only if this many images have it: `a_2` alone may be another image than `a`."""

_TOO_LARGE = "cut the ground truth and its prediction into the same tiles without overlap, and score the folders of tiles"

_SHOWN = 3


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


def pair_pngs(predictions: Path, truths: Path, instances: Path | None = None) -> PngPairs:
    """Pair the PNGs under two folders by stem, or by their path below the folder where stems repeat.

    Where stems do not pair as they are, the usual endings (`_pred`, `_mask` ...) are left out, then one beginning and ending that
    all predictions share. instances: a folder of instance maps with the names of the ground truth; if None, the `_instanceIds`
    beside it are taken. Raises InputError where a folder has no PNG, a file has no partner, or two files have one image's name.
    """
    truth_files, kind = _choose(_pngs(truths, "--gt"))
    prediction_files = _pngs(predictions, "--pred")
    if (predictions / RECORD).is_file():  # `segctl predict --confidence` writes pictures beside the masks
        prediction_files = [path for path in prediction_files if not path.is_relative_to(predictions / CONFIDENCE)]
    by_path = len({_stem(path) for path in truth_files}) < len(truth_files)
    found, wanted = _keyed(prediction_files, predictions, by_path), _keyed(truth_files, truths, by_path)
    matches = list(_matches(list(wanted), list(found)))
    # max takes the first of equals, so names that pair as they are win.
    partner = max(matches, key=len)
    left = sorted(found[name] for name in found.keys() - set(partner.values()))
    lonely = sorted(wanted[name] for name in wanted.keys() - partner.keys())
    if lonely:
        raise _no_partner(lonely, len(wanted), "ground truth", "prediction", predictions, left or sorted(found.values()))
    if left:
        raise _no_partner(left, len(found), "prediction", "ground truth", truths, sorted(wanted.values()))
    if instances is None:
        maps = {name: _instances_of(wanted[name]) for name in wanted}
    else:
        maps = _given_instances(wanted, instances, by_path)
    pairs = [PngPair(name, found[partner[name]], wanted[name], maps[name]) for name in sorted(wanted)]
    return PngPairs(tuple(pairs), kind)


def _matches(wanted: list[str], found: list[str]) -> Iterator[dict[str, str]]:
    """Ways to pair image names of ground truth with those of predictions, each name once; the strictest first."""
    yield _joined(wanted, found, lambda name: name, lambda name: name)
    yield _joined(wanted, found, _without_endings, _without_endings)
    for shorten in (lambda name: name, _without_endings):
        affixes = _shared_affixes([shorten(name) for name in wanted], found)
        if affixes is not None:
            yield _joined(wanted, found, shorten, lambda name, affixes=affixes: _without_affixes(name, *affixes))  # type: ignore[misc]


def _joined(wanted: list[str], found: list[str], key: Callable[[str], str], other_key: Callable[[str], str]) -> dict[str, str]:
    """Names of ground truth with the prediction of the same key; keys that two names share pair with nothing."""
    ours: dict[str, list[str]] = defaultdict(list)
    theirs: dict[str, list[str]] = defaultdict(list)
    for names, keyed, of in ((wanted, ours, key), (found, theirs, other_key)):
        for name in names:
            keyed[of(name)].append(name)
    return {names[0]: theirs[shared][0] for shared, names in ours.items() if len(names) == 1 and len(theirs.get(shared, ())) == 1}


def _without_endings(name: str) -> str:
    while (ending := OTHER_ENDING.search(name)) and ending.start() > name.rfind("/") + 1:
        name = name[: ending.start()]
    return name


def _shared_affixes(wanted: list[str], found: list[str]) -> tuple[str, str] | None:
    """The beginning and the ending that most predictions have around the name of a ground truth; None where few have one."""
    stems = {name.rpartition("/")[2] for name in wanted}
    seen = Counter[tuple[str, str]]()
    for name in found:
        stem = name.rpartition("/")[2]
        cuts = [
            0,
            *(place.end() for place in re.finditer(r"[-_. ]", stem)),
            *(place.start() for place in re.finditer(r"[-_. ]", stem)),
            len(stem),
        ]
        inside = {(a, b) for a in cuts for b in cuts if a < b and stem[a:b] in stems}
        seen.update((stem[:a], stem[b:]) for a, b in inside if re.search("[A-Za-z]", stem[:a] + stem[b:]))
    best = seen.most_common(1)
    return best[0][0] if best and best[0][1] >= AFFIX_IMAGES else None


def _without_affixes(name: str, beginning: str, ending: str) -> str:
    folder, slash, stem = name.rpartition("/")
    return folder + slash + stem.removeprefix(beginning).removesuffix(ending)


def read_ids(path: Path, rule: OwnRule | None = None) -> Ids:
    """The ids uint8 or uint16 (H, W) of a one-channel picture. Raises InputError naming the file.

    rule: of the class table that the picture is read by, which also says what the colours of a palette mean.
    """
    ids, colors = read_label_and_colors(PlainFile(str(path), path), _TOO_LARGE)
    return ids if rule is None or colors is None else rule.ids_of_palette(f"'{path}'", ids, colors)


def _pngs(folder: Path, option: str) -> list[Path]:
    """The PNGs below a folder, sorted. Links are followed; folders of systems and editors (`.ipynb_checkpoints`) are left out."""
    if not folder.is_dir():
        raise InputError(f"{option} '{folder}' is not a folder", "give the folder that holds the PNGs")
    found = files_below(folder, lambda name: name.lower().endswith(".png"))
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
        name = (below / _stem(path)).as_posix() if by_path else _stem(path)
        keyed[unicodedata.normalize("NFC", name)].append(path)  # Macs write an accent as a letter of its own
    for name, several in keyed.items():
        if len(several) > 1:
            one, other = (path.relative_to(folder) for path in several[:2])
            raise InputError(f"'{one}' and '{other}' in '{folder}' are both the image '{name}'", "keep one file for each image")
    return {name: several[0] for name, several in keyed.items()}


def _no_partner(lonely: list[Path], count: int, what: str, partner: str, where: Path, others: list[Path]) -> InputError:
    return InputError(
        f"{len(lonely)} of {count} files of {what} have no {partner} in '{where}': {_some(lonely)}; "
        f"the files there are called {_some(others)}",
        "files are paired by name without ending; add the missing files, remove the others, or rename them",
    )


def _some(paths: list[Path]) -> str:
    return ", ".join(f"'{path.name}'" for path in paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")


def _given_instances(wanted: dict[str, Path], folder: Path, by_path: bool) -> dict[str, Path | None]:
    """The instance map of each ground truth, by its name or by its name and an ending. Raises InputError where one has none."""
    files = _keyed(_pngs(folder, "--instances"), folder, by_path)
    endings = {re.sub(r"_(instanceIds|instances?|panoptic)$", "", _without_gt(name)): path for name, path in files.items()}
    found = {name: files.get(name) or endings.get(_without_gt(name)) for name in wanted}
    lonely = sorted(wanted[name] for name, path in found.items() if path is None)
    if lonely:
        raise _no_partner(lonely, len(wanted), "ground truth", "instance map", folder, sorted(files.values()))
    return dict(found)


def _without_gt(name: str) -> str:
    return re.sub(r"_gt(Fine|Coarse)(?=_|$)", "", name)


def read_instances(path: Path) -> NDArray[np.uint16]:
    """An instance map of any numbers (see `instance_ids.py`), uint16 (H, W). Raises InputError naming the file."""
    try:
        return numbered_instances(read_instance_ids(PlainFile(str(path), path)))
    except ArgumentError as error:
        raise InputError(f"'{path}': {error.message}") from error


def _instances_of(truth: Path) -> Path | None:
    path = truth.with_name(re.sub(r"_label(Train)?Ids$", "_instanceIds", truth.stem) + truth.suffix)
    return path if path != truth and path.is_file() else None
