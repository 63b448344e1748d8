"""The splits of a person's own data: by folder, by list files, or drawn by a seed."""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from segctl.data.files.archives import PlainFile, read_lines
from segctl.data.files.path_index import ENDING, PathIndex, last_name
from segctl.data.findings import Finding
from segctl.errors import InputError

EXAMPLE = "for example --split val=0.2 (a fifth, drawn by a seed; the rest is train) or --split val=val.txt (one name per line)"
_ORDER = ("train", "val", "test")


@dataclass(frozen=True)
class Drawn:
    """The splits, the problems found in their list files, and notes on what is left out."""

    splits: dict[str, list[str]]
    problems: tuple[Finding, ...] = ()
    notes: tuple[str, ...] = ()


def split_samples(folders: Mapping[str, str], texts: Sequence[str], seed: int, paths: Mapping[str, str] | None = None) -> Drawn:
    """Split the samples by texts such as "val=0.2" or "val=val.txt", or by their first folder if there are no texts.

    folders: the folder of each sample, "" for the top.  paths: the path of each sample's picture below the images, if it is not
    the sample's name in its folder.  A ratio is of the samples that no list names; the rest becomes train.
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
    return _by_lists_and_ratios(
        paths or {name: f"{folder}/{name}".lstrip("/") for name, folder in folders.items()}, lists, ratios, seed
    )


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
        raise InputError(f"the pictures are {where}, so nothing says which of them are for validation", f"add --split, {EXAMPLE}")
    for split in found:
        if not re.fullmatch(r"[A-Za-z0-9_]+", split):
            raise InputError(f"the folder '{split}' cannot name a split", "use letters, digits and _, or --split")
    return {split: sorted(name for name, first in firsts.items() if first == split) for split in found}


def _by_lists_and_ratios(paths: Mapping[str, str], lists: Mapping[str, Path], ratios: Mapping[str, float], seed: int) -> Drawn:
    if sum(ratios.values()) > 1 + 1e-9:
        raise InputError(f"the ratios of --split add up to {sum(ratios.values()):g}, wanted at most 1", EXAMPLE)
    splits: dict[str, list[str]] = {}
    problems: list[Finding] = []
    index = PathIndex(paths)
    for split, path in lists.items():
        splits[split], found = _listed(path, split, index)
        problems += found
    named = {name for listed in splits.values() for name in listed}
    left = sorted((name for name in paths if name not in named), key=lambda name: _shuffled(name, seed))
    total = len(left)
    for split, ratio in ratios.items():
        count = min(len(left), round(ratio * total))
        if not count:
            raise InputError(f"--split {split}={ratio:g} selects none of {total} samples", "give a larger ratio")
        splits[split], left = sorted(left[:count]), left[count:]
    if left and ratios and "train" not in splits:
        splits["train"], left = sorted(left), []
    notes = (f"{len(left)} samples are in no split and left out",) if left else ()
    order = sorted(splits, key=lambda split: _ORDER.index(split) if split in _ORDER else len(_ORDER))
    return Drawn({split: splits[split] for split in order}, tuple(problems), notes)


def _shuffled(name: str, seed: int) -> str:
    """A sort key that depends on name and seed alone, so that adding samples moves no other sample to another split."""
    return hashlib.sha256(f"{seed} {name}".encode()).hexdigest()


def _listed(path: Path, split: str, index: PathIndex) -> tuple[list[str], list[Finding]]:
    """The samples that a list file names, in its order, each once; and its problems."""
    if not path.exists():
        raise InputError(f"the list '{path}' of split '{split}' does not exist", EXAMPLE)
    names: dict[str, None] = {}
    problems: list[Finding] = []
    for line in read_lines(PlainFile(str(path), path)):
        found = _find(index, line)
        if len(found) == 1 and (other := _another(index, line, found[0])) is not None:
            both = " and ".join(f"'{index.paths[name]}'" for name in sorted((found[0], other)))
            problem = f"'{path}' lists '{line}', which names the pictures {both}"
            problems.append(Finding(line, problem, "write one picture on each line; columns that name another one are not read"))
        elif len(found) == 1 and found[0] in names:
            problems.append(Finding(found[0], f"'{path}' lists '{found[0]}' more than once", "remove the repeated line"))
        elif len(found) == 1:
            names[found[0]] = None
        elif found:
            several = ", ".join(f"'{index.paths[name]}'" for name in found[:3])
            problem = f"'{path}' lists '{line}', which names {len(found)} pictures: {several}"
            problems.append(Finding(line, problem, "write the paths of the pictures below the images"))
        else:
            problem = f"'{path}' lists '{line}', which has no picture with a label"
            problems.append(Finding(line, problem, "correct the list or add the files"))
    if not names and not problems:
        raise InputError(f"the list '{path}' of split '{split}' names no sample", EXAMPLE)
    return list(names), problems


def _find(index: PathIndex, line: str) -> list[str]:
    """The samples that a line names: one if all is well, none for an unknown line, several for an ambiguous one.

    A line is tried as a whole first, because file names may hold spaces; only then as columns.
    """
    return next((found for text in _readings(index, line) if (found := index.find(text))), [])


def _another(index: PathIndex, line: str, name: str) -> str | None:
    """Another sample that a column of the line names; None if there is none, or if the line as a whole is a picture's name."""
    # Where no picture's path has spaces, `a.jpg masks/b.png` is two columns, and not b in the folder `a.jpg masks`.
    whole = index.has_spaces or len(line.split()) == 1
    if whole and index.find(line):
        return None
    words = (word.strip() for word in re.split(r"[\t,;]+" if index.has_spaces else r"[\s,;]+", line))
    columns = (index.find(word) or index.find(last_name(word)) for word in words)  # labels lie in another folder
    return next((found[0] for found in columns if len(found) == 1 and found[0] != name), None)


def _readings(index: PathIndex, line: str) -> Iterator[str]:
    """The line, then what its first column may be: up to a tab or comma, up to a picture's ending, up to a space."""
    yield line
    for separator in "\t,;":
        if separator in line:
            yield line.split(separator)[0].strip()
    if match := re.match(rf"(.+?{ENDING})\s", line, re.IGNORECASE):
        yield match[1]
    first, *others = line.split()
    # `photo (2).jpg` must not become `photo`, so words count as columns only where they can be nothing else.
    if not index.has_spaces and all(re.fullmatch(r"[-+]?[\d.]+", word) or last_name(word) == last_name(first) for word in others):
        yield first
