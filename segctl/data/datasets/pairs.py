"""The form that most datasets have: an image file and a label file for every sample.

A label file becomes train ids by a rule: an `IdMap` for index maps, a `ColorMap` for masks in class colours, or a dataset's own.
Below stand the rules, the pairing of images with labels, and the reader of pairs.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Protocol

import cv2
import numpy as np

from segctl.data.classes import MAX_VALUES, ClassTable
from segctl.data.datasets.turned import OwnImage
from segctl.data.files.archives import File, Files, read_lines
from segctl.data.files.bands import BandChoice, BandPicture, BandScaling
from segctl.data.files.pictures import Decoded, Picture, turn_upright
from segctl.data.findings import Finding
from segctl.data.instance_ids import numbered_instances
from segctl.data.raters import majority, votes_of
from segctl.data.source import RawSample
from segctl.errors import InputError
from segctl.ignored import IGNORED

MAX_UNKNOWN = 0.02
"""The fraction of a mask that may have colours of no class: stray pixels are ignored, a resized or foreign mask is refused."""
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Unknown:
    """Values in a label that its class table does not name, and that become 255.

    pixels: how many have a colour of no class.  values: pixels of the most frequent values in words, those that are ignored by
    custom (the id 255) too.
    """

    pixels: int = 0
    values: Mapping[str, int] = field(default_factory=dict)


class LabelRule(Protocol):
    """How the values in a label file become train ids."""

    def train_ids(self, what: object, values: np.ndarray) -> tuple[np.ndarray, "Unknown"]:
        """Values uint8 (H, W) or (H, W, 3) -> train ids uint8 (H, W), 255 ignored; and what the class table does not name.

        Raises InputError that names the file `what` and the value that it should not hold.
        """
        ...


@dataclass(frozen=True)
class IdMap:
    """Index maps: each value is a raw id.

    train: 256 train ids.  known: 256 flags, which raw ids may occur.  advice: what to do about others.  unlisted: ids that may
    occur although the class table has no row for them.
    """

    train: bytes
    known: bytes
    advice: str
    unlisted: tuple[int, ...] = ()

    @classmethod
    def of(cls, classes: ClassTable, advice: str, *, ignored: tuple[int, ...] = ()) -> "IdMap":
        """The table's raw ids; `ignored` are ids that may occur besides them and become 255."""
        known = classes.known_raw_ids()
        unlisted = tuple(raw for raw in ignored if not known[raw])
        known[list(ignored)] = True
        return cls(classes.raw_to_train().tobytes(), known.tobytes(), advice, unlisted)

    def train_ids(self, what: object, values: np.ndarray) -> tuple[np.ndarray, Unknown]:
        """Raw ids uint8 (H, W) -> train ids uint8 (H, W). Raises InputError for the first id that may not occur."""
        check_ids(str(what), values, self)
        counts = {f"{raw}": int(np.count_nonzero(values == raw)) for raw in self.unlisted}
        unknown = Unknown(values={value: count for value, count in counts.items() if count})
        return np.asarray(cv2.LUT(values, np.frombuffer(self.train, np.uint8))), unknown


def check_ids(what: str, raw: np.ndarray, ids: IdMap) -> None:
    """Raise InputError for the first id of an index map, uint8 (H, W), that may not occur."""
    if cv2.LUT(raw, np.frombuffer(ids.known, np.uint8)).all():
        return
    counts, known = np.bincount(raw.ravel(), minlength=256), np.frombuffer(ids.known, bool)
    wrong = np.flatnonzero((counts > 0) & ~known)
    raise InputError(
        f"{what} holds the id {wrong[0]} ({counts[wrong[0]]} pixels), wanted {_ranges(np.flatnonzero(known))}"
        + guess_label_ids(set(np.flatnonzero(counts).tolist()), int(known[:IGNORED].sum())),
        ids.advice,
    )


def guess_label_ids(present: set[int], num_ids: int) -> str:
    """A clause for ids that look like Cityscapes' 34 label ids where its 19 train ids are meant, or the reverse; else empty.

    present: the ids in a label.  num_ids: how many ids there may be.
    """
    most = max(present - {IGNORED}, default=0)
    if num_ids == 19 and 18 < most <= 33:
        return "; these look like Cityscapes labelIds where train ids are meant"
    if num_ids == 34 and IGNORED in present and most <= 18:
        return "; these look like Cityscapes train ids where labelIds are meant"
    return ""


def _ranges(ids: np.ndarray) -> str:
    """Sorted ids (n,) as words: `0 to 18 or 255`."""
    runs = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    words = [f"{run[0]}" if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs if run.size]
    return " or ".join(words)


@dataclass(frozen=True)
class ColorMap:
    """Masks in class colours. Colours outside the table are ignored, up to MAX_UNKNOWN of a mask."""

    colors: tuple[tuple[Color, int], ...]
    """Each colour with its train id."""
    advice: str

    @classmethod
    def of(cls, train_ids: Mapping[Color, int], advice: str) -> "ColorMap":
        return cls(tuple(sorted(train_ids.items())), advice)

    def train_ids(self, what: object, values: np.ndarray) -> tuple[np.ndarray, Unknown]:
        """RGB uint8 (H, W, 3) -> train ids uint8 (H, W). Raises InputError above MAX_UNKNOWN."""
        wide = values.astype(np.int32)
        codes = wide[..., 0] << 16 | wide[..., 1] << 8 | wide[..., 2]
        label, known = (table[codes] for table in _color_tables(self))
        unknown = int(known.size - np.count_nonzero(known))
        if not unknown:
            return label, Unknown()
        found, counts = np.unique(codes[~known], return_counts=True)
        most = np.argsort(-counts, kind="stable")[:MAX_VALUES]
        colors = {
            f"{code >> 16},{code >> 8 & 255},{code & 255}": int(count)
            for code, count in zip(found[most].tolist(), counts[most], strict=True)
        }
        if unknown > MAX_UNKNOWN * known.size:
            percent, worst = 100 * unknown / known.size, next(iter(colors))
            raise InputError(f"{what} has colours of no class on {percent:.1f} % of its pixels, {worst} most of all", self.advice)
        return label, Unknown(unknown, colors)


@lru_cache(maxsize=4)
def _color_tables(colors: ColorMap) -> tuple[np.ndarray, np.ndarray]:
    """For each of the 2^24 colours its train id, uint8, and whether it is known, bool.

    A look-up in 32 MB is the fastest way for large masks; comparing with each colour takes one pass over the mask per class.
    """
    label, known = np.full(2**24, IGNORED, np.uint8), np.zeros(2**24, bool)
    for (red, green, blue), train_id in colors.colors:
        label[red << 16 | green << 8 | blue] = train_id
        known[red << 16 | green << 8 | blue] = True
    return label, known


@dataclass(frozen=True)
class Label:
    """array: uint8 (H, W) in train ids, 255 ignored.  sha256, byte_count: of the file."""

    array: np.ndarray
    sha256: str
    byte_count: int
    unknown: Unknown = field(default_factory=Unknown)
    raters: np.ndarray | None = None
    """uint8 (R, H, W): the label maps of several raters, whose majority `array` is; None for one label map."""


class LabelFile(Protocol):
    """The label file of one sample. Its `str` is what messages call it."""

    def size(self) -> tuple[int, int] | None:
        """(H, W) from the header; None if only decoding tells."""
        ...

    def decode(self) -> Label:
        """Raises InputError that names the sample, its file, and what it holds that it should not."""
        ...

    def digest(self) -> str:
        """The `sha256` that `decode` would give."""
        ...


@dataclass(frozen=True)
class PictureFile:
    """What every label file that is a picture has in common; see LabelFile."""

    picture: Picture

    def __str__(self) -> str:
        return str(self.picture)

    def size(self) -> tuple[int, int]:
        return self.picture.size()

    def digest(self) -> str:
        return self.picture.digest()


@dataclass(frozen=True)
class PictureLabel(PictureFile):
    """A label that is a picture, and the rule that turns its values into train ids."""

    rule: LabelRule

    def decode(self) -> Label:
        decoded = self.picture.decode()
        array, unknown = self.rule.train_ids(self.picture, decoded.array)
        return Label(array, decoded.sha256, len(decoded.content), unknown)


@dataclass(frozen=True)
class RatedLabel:
    """The label maps of several raters as one label: their majority, and beside it all of them."""

    files: tuple[LabelFile, ...]

    def __str__(self) -> str:
        return str(self.files[0])

    def size(self) -> tuple[int, int] | None:
        """(H, W) from the headers, None if only decoding tells. Raises InputError if they differ."""
        first = self.files[0].size()
        for other in self.files[1:]:
            if first is not None:
                _compare(other, other.size(), first, "as the first rater's")
        return first

    def decode(self) -> Label:
        """All maps decoded. Raises InputError as each of them does, and where their sizes differ."""
        found = [file.decode() for file in self.files]
        first = found[0].array
        for file, label in zip(self.files, found, strict=True):
            _compare(file, label.array.shape, first.shape, "as the first rater's")
        raters = np.stack([label.array for label in found])
        values: Counter[str] = Counter()
        for label in found:
            values.update(label.unknown.values)
        unknown = Unknown(sum(label.unknown.pixels for label in found), dict(values.most_common(MAX_VALUES)))
        digest = _joint_sha256([label.sha256 for label in found])
        return Label(majority(raters), digest, sum(label.byte_count for label in found), unknown, raters)

    def digest(self) -> str:
        return _joint_sha256([file.digest() for file in self.files])


@dataclass(frozen=True)
class InstanceMap:
    """A 16-bit map whose values below 1000 are raw ids, and others `raw id · 1000 + number`; `train` maps raw to train ids."""

    picture: Picture
    train: bytes

    def check(self, instance: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The map, uint16 (H, W). Raises InputError if it shows other classes than the label, uint8 (H, W) train ids."""
        raw = np.where(instance < 1000, instance, instance // 1000)
        other = int(np.count_nonzero(np.frombuffer(self.train, np.uint8)[np.minimum(raw, 255)] != label))
        if other:
            raise InputError(f"{self.picture} shows other classes than the label on {other} pixels", "get both files again")
        return instance


@dataclass(frozen=True)
class NumberedInstances:
    """A map of any numbers, one an instance, see `instance_ids.py`."""

    picture: Picture

    def check(self, instance: np.ndarray, label: np.ndarray) -> np.ndarray:
        """The map in segctl's code, uint16 (H, W). Any label goes with it: the label alone says the class."""
        return numbered_instances(instance)


class ImageFile(Protocol):
    """The image file of one sample. Its `str` is what messages call it."""

    def size(self) -> tuple[int, int]:
        """(H, W) from the header. Raises InputError for a file that is not what it must be."""
        ...

    def decode(self) -> Decoded:
        """uint8 (H, W, bands), or (H, W) of a grey picture. Raises InputError that names sample and file."""
        ...

    def digest(self) -> str:
        """The `sha256` that `decode` would give."""
        ...


@dataclass(frozen=True)
class PairReader:
    """Reads samples that are an image, a label and perhaps an instance map, each a file."""

    images: Mapping[str, ImageFile]
    labels: Mapping[str, LabelFile]
    instances: Mapping[str, InstanceMap | NumberedInstances] = field(default_factory=dict)
    classes: ClassTable | None = None
    """Of labels by several raters, whose weights depend on it."""

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) from the headers of image, label and instance map. Raises InputError if they differ."""
        image = self.images[name]
        size = image.size()
        _compare(self.labels[name], self.labels[name].size(), image.label_size() if isinstance(image, OwnImage) else size)
        if name in self.instances:
            _compare(self.instances[name].picture, self.instances[name].picture.size(), size)
        return size

    def digest(self, name: str) -> str:
        digests = [self.images[name].digest(), self.labels[name].digest()]
        if name in self.instances:
            digests.append(self.instances[name].picture.digest())
        return _joint_sha256(digests)

    def read(self, name: str) -> RawSample:
        image, label = self.images[name].decode(), self.labels[name].decode()
        # The sizes come with the pixels here; reading the headers for `size` once more would open every file twice.
        size = (image.array.shape[0], image.array.shape[1])
        array = label.array if image.label_turn == 1 else turn_upright(label.array, image.label_turn)
        _compare(self.labels[name], array.shape[:2], size)
        digests, count = [image.sha256, label.sha256], len(image.content) + label.byte_count
        instance = None
        if name in self.instances:
            decoded = self.instances[name].picture.decode()
            _compare(self.instances[name].picture, decoded.array.shape[:2], size)
            instance = self.instances[name].check(decoded.array, array)
            digests, count = [*digests, decoded.sha256], count + len(decoded.content)
        votes = None
        if label.raters is not None and self.classes is not None:
            turn = image.label_turn
            raters = label.raters if turn == 1 else np.stack([turn_upright(rater, turn) for rater in label.raters])
            votes = votes_of(f"sample '{name}'", raters, self.classes.num_classes, binary=self.classes.binary)
        grey = image.array.ndim == 2
        return RawSample(
            name=name,
            image=np.repeat(image.array[..., None], 3, axis=2) if grey else image.array,
            label=array,
            instance=instance,
            source_sha256=_joint_sha256(digests),
            source_bytes=count,
            unknown_pixels=label.unknown.pixels,
            unknown_values=label.unknown.values,
            remarks={image.remark: 1} if image.remark else {},
            image_file=image.content if image.mode == "RGB" else None,
            votes=votes,
        )


def sample_images(
    files: Mapping[str, File], splits: Mapping[str, list[str]], choice: BandChoice | None
) -> tuple[Mapping[str, Picture | BandPicture], BandScaling | None, tuple[str, ...]]:
    """The image of each sample of a person's own dataset; how its bands are scaled, None for 8-bit colour; and a note on it.

    Ranges are measured on the training pictures, or on all where no split is called `train`. Raises InputError as
    `BandChoice.resolved` does.
    """
    if choice is None or not files:
        return {sample: Picture(sample, "image", file, ("RGB", "L")) for sample, file in files.items()}, None, ()
    scaling = choice.resolved([files[sample] for sample in splits.get("train") or sorted(files)])
    return {sample: BandPicture(sample, file, scaling) for sample, file in files.items()}, scaling, (scaling.in_words(),)


def _compare(what: object, got: tuple[int, ...] | None, wanted: tuple[int, ...], like: str = "as its image") -> None:
    """Raise InputError if the size (H, W) of a label or instance map is known and not the image's."""
    if got is not None and got != wanted:
        raise InputError(
            f"{what} is {got[1]}×{got[0]} pixels, wanted {wanted[1]}×{wanted[0]} {like}", "replace the one that was resized"
        )


def _joint_sha256(digests: list[str]) -> str:
    return hashlib.sha256(" ".join(digests).encode()).hexdigest()


def in_folder(files: Files, folder: str, ending: str) -> dict[str, File]:
    """The files with that ending directly in a folder (not below it), by name without the ending, sorted."""
    below = sorted(files.under(folder.strip("/")).items())
    return {name.removesuffix(ending): file for name, file in below if name.endswith(ending) and "/" not in name}


def by_sample(files: Mapping[str, File], sample_of: Callable[[str], str | None]) -> tuple[dict[str, File], list[Finding]]:
    """Files by sample, and a finding for each sample that has two.

    sample_of: the sample that a path names; None leaves the file out.
    """
    found: dict[str, File] = {}
    twice = []
    for path, file in files.items():
        if (name := sample_of(path)) is None:
            continue
        if name in found:
            problem = f"sample '{name}' occurs twice, as '{found[name].where}' and '{file.where}'"
            twice.append(Finding(name, problem, "keep one of them"))
        found[name] = file
    return found, twice


def stem_of(path: str) -> str:
    """The file's name without folder and ending."""
    return PurePosixPath(path).stem


def pair(
    images: Mapping[str, File], labels: Mapping[str, File], missing: Callable[[str, str], str]
) -> tuple[list[str], list[Finding]]:
    """The samples that have an image and a label, sorted; and a finding for each that has only one of them.

    missing: for ("image" or "label", sample) the words that say which file is wanted, and where.
    """
    found = []
    for name in sorted(images.keys() ^ labels.keys()):
        there, absent = ("image", "label") if name in images else ("label", "image")
        found.append(
            Finding(
                name,
                f"sample '{name}' has its {there} but no {absent}: {missing(absent, name)}",
                f"add the {absent}, or remove the {there}",
            )
        )
    return sorted(images.keys() & labels.keys()), found


def read_list(file: File, sample_of: Callable[[str], str]) -> tuple[list[str], list[Finding]]:
    """The samples that a list file names, in its order, each once; and a finding for each that is repeated."""
    names: dict[str, None] = {}
    repeated = []
    for line in read_lines(file):
        name = sample_of(line)
        if name in names:
            repeated.append(Finding(name, f"'{file.where}' lists '{name}' more than once", "remove the repeated line"))
        names[name] = None
    return list(names), repeated


def list_md5(lines: Iterable[str]) -> str:
    """MD5 of the lines, each ended by a newline, as hexadecimal digits: it tells whether a split is the official list."""
    return hashlib.md5("".join(f"{line}\n" for line in lines).encode(), usedforsecurity=False).hexdigest()
