"""The splits of a person's own data: by folder, by list files, or drawn by a seed."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segctl.data.datasets.pairs import read_list
from segctl.data.files.archives import PlainFile
from segctl.data.findings import Finding
from segctl.errors import InputError

EXAMPLE = "such as --split val=0.2 (a fifth, drawn by a seed; the rest is train) or --split val=val.txt (one name per line)"
_ORDER = ("train", "val", "test")


@dataclass(frozen=True)
class Drawn:
    """The splits, the problems found in their list files, and notes on what is left out."""

    splits: dict[str, list[str]]
    problems: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


def split_samples(folders: Mapping[str, str], texts: Sequence[str], seed: int) -> Drawn:
    """Split the samples by texts such as "val=0.2" or "val=val.txt", or by their first folder if there are no texts.

    folders: the folder of each sample, "" for the top.  A ratio is of the samples that no list names; the rest becomes train.
    Raises InputError for a text that does not fit.
    """
    if not texts:
        return Drawn(_by_folder(folders))
    lists: dict[str, Path] = {}
    ratios: dict[str, float] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if not re.fullmatch(r"[A-Za-z0-9_]+", name) or not value:
            raise InputError(f"--split is '{text}', wanted NAME=RATIO or NAME=FILE", EXAMPLE)
        if name in lists or name in ratios:
            raise InputError(f"--split names '{name}' twice", EXAMPLE)
        if re.fullmatch(r"[0-9.]+", value) and not Path(value).is_file():
            ratios[name] = _ratio(text, value)
        else:
            lists[name] = Path(value)
    return _by_lists_and_ratios(sorted(folders), lists, ratios, seed)


def _ratio(text: str, value: str) -> float:
    try:
        ratio = float(value)
    except ValueError:
        ratio = 0.0
    if not 0 < ratio <= 1:
        raise InputError(f"--split is '{text}', wanted a ratio above 0 and at most 1", EXAMPLE)
    return ratio


def _by_folder(folders: Mapping[str, str]) -> dict[str, list[str]]:
    firsts = {name: PurePosixPath(folder).parts[0] if folder else "" for name, folder in folders.items()}
    found = sorted(set(firsts.values()), key=lambda split: (_ORDER.index(split) if split in _ORDER else len(_ORDER), split))
    if "" in found:
        where = "in one folder" if len(found) == 1 else "partly in folders and partly beside them"
        raise InputError(f"the pictures lie {where}, so nothing says which are for validation", f"add --split, {EXAMPLE}")
    for split in found:
        if not re.fullmatch(r"[A-Za-z0-9_]+", split):
            raise InputError(f"the folder '{split}' cannot name a split", "use letters, digits and _, or --split")
    return {split: sorted(name for name, first in firsts.items() if first == split) for split in found}


def _by_lists_and_ratios(samples: list[str], lists: Mapping[str, Path], ratios: Mapping[str, float], seed: int) -> Drawn:
    if sum(ratios.values()) > 1 + 1e-9:
        raise InputError(f"the ratios of --split add up to {sum(ratios.values()):g}, wanted at most 1", EXAMPLE)
    splits: dict[str, list[str]] = {}
    problems: list[Finding] = []
    for split, path in lists.items():
        splits[split], found = _listed(path, split, samples)
        problems += found
    named = {name for listed in splits.values() for name in listed}
    left = sorted((name for name in samples if name not in named), key=lambda name: _shuffled(name, seed))
    total = len(left)
    for split, ratio in ratios.items():
        count = min(len(left), round(ratio * total))
        if not count:
            raise InputError(f"--split {split}={ratio:g} is none of {total} samples", "give a larger ratio")
        splits[split], left = sorted(left[:count]), left[count:]
    if left and ratios and "train" not in splits:
        splits["train"], left = sorted(left), []
    notes = (f"{len(left)} samples are in no split and left out",) if left else ()
    order = sorted(splits, key=lambda split: _ORDER.index(split) if split in _ORDER else len(_ORDER))
    return Drawn({split: splits[split] for split in order}, tuple(problems), notes)


def _shuffled(name: str, seed: int) -> str:
    """A sort key that depends on name and seed alone, so that adding samples moves no other sample to another split."""
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def _listed(path: Path, split: str, samples: Sequence[str]) -> tuple[list[str], list[Finding]]:
    """The samples that a list file names, by name or by path with an ending; and its problems."""
    if not path.is_file():
        raise InputError(f"the list '{path}' of split '{split}' does not exist", EXAMPLE)
    known = set(samples)

    def name_of(line: str) -> str:
        word = line.split()[0]
        stem = PurePosixPath(word.replace("\\", "/")).name
        return next((name for name in (line, word, stem, PurePosixPath(stem).stem) if name in known), PurePosixPath(stem).stem)

    listed, problems = read_list(PlainFile(str(path), path), name_of)
    problems += [
        Finding(name, f"'{path}' lists '{name}', which has no picture with a label", "correct the list or add the files")
        for name in listed
        if name not in known
    ]
    return [name for name in listed if name in known], problems
