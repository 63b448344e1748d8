"""Label maps that a network made (`segctl predict`): who made them, and which of their pixels are certain enough to be labels.

    --min-confidence 0.9                      every class: less certain pixels become ignored
    --min-confidence road=0.9,sky=0.8,0.7     these classes, and 0.7 for all others
    --min-confidence balanced=0.5             of every class the more certain half of its pixels, counted over the whole folder
    --min-confidence limits.yaml              a file that maps class names (and `balanced`, `others`) to numbers

Several go together: a pixel must pass all that are said of its class. A label map of the folder without a confidence map, where
others have one, was put there by a person; it is taken as it is.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import BaseModel

from segctl.data.classes import ClassRow, ClassTable, bit_color
from segctl.data.datasets.class_file import OwnClasses
from segctl.data.datasets.own.names import LABEL_ENDINGS, only, path_of, place_of
from segctl.data.datasets.pairs import IdMap, Label, LabelFile, PictureLabel
from segctl.data.files.archives import File, Files
from segctl.data.files.pictures import read_label
from segctl.data.labels.certainty import CONFIDENCE, LEVELS, RECORD, SOFT
from segctl.data.source import PredictedLabels
from segctl.errors import InputError, did_you_mean
from segctl.files import content_key, parse_record
from segctl.ignored import IGNORED
from segctl.schema.yaml import load_yaml

BALANCED, OTHERS = "balanced", "others"
OVERLAYS = "overlays"


class _Record(BaseModel):
    """The fields of predict.json that are read here."""

    weights: str
    weights_sha256: str
    ids: str
    classes: list[str]
    preset: str = ""


@dataclass(frozen=True)
class Predictions:
    """A folder of predictions. labels: its label maps.  confidences: the confidence map of a label map, by the latter's place."""

    record: _Record
    labels: Files
    confidences: Mapping[Path, File]

    @property
    def network(self) -> str:
        """What the network is called: its preset, else its file or run."""
        return self.record.preset or PurePosixPath(self.record.weights.replace("\\", "/")).parent.name or self.record.weights

    def classes(self) -> OwnClasses:
        """The network's own classes, for a person who gives no table."""
        rows = tuple(ClassRow(name, number, number, bit_color(number + 1)) for number, name in enumerate(self.record.classes))
        table = ClassTable(rows)
        ids = IdMap.of(
            table, "predict again with this network, or give the table of these labels with --classes", ignored=(IGNORED,)
        )
        return OwnClasses(table, ids, None, content_key(table.to_json()))

    def is_predicted(self, label: File) -> bool:
        """Whether a network made this label map; one without confidence map, where others have one, is a person's."""
        return not self.confidences or place_of(label) in self.confidences


def find_predictions(labels: Files) -> Predictions | None:
    """The predictions that a folder or archive holds; None if `segctl predict` did not write it. Raises InputError if damaged."""
    records = sorted((path for path in labels.members if PurePosixPath(path).name == RECORD), key=lambda path: path.count("/"))
    if not records:
        return None
    where = labels.members[records[0]].where
    text = bytes(labels.members[records[0]].read()).decode("utf-8", "replace")
    record = parse_record(text, _Record, f"'{where}'", "predict again into another folder")
    if "train ids" not in record.ids:
        raise InputError(
            f"{labels.given} holds {record.ids}, not the classes of its network", "predict again without --label-ids"
        )
    above = PurePosixPath(records[0]).parent
    below = {path: PurePosixPath(path).relative_to(above) for path in labels.members if PurePosixPath(path).is_relative_to(above)}
    maps = {path: short for path, short in below.items() if path.lower().endswith(LABEL_ENDINGS)}
    beside = (CONFIDENCE, SOFT, OVERLAYS)
    chosen = only(labels, [path for path, short in maps.items() if short.parts[0] not in beside or len(short.parts) == 1])
    certain = {
        path_of(short.relative_to(CONFIDENCE).as_posix()): labels.members[path]
        for path, short in maps.items()
        if short.parts[0] == CONFIDENCE and len(short.parts) > 1
    }
    confidences = {
        place_of(file): certain[name]
        for path, file in chosen.members.items()
        if (name := path_of(below[path].as_posix())) in certain
    }
    return Predictions(record, chosen, confidences)


@dataclass(frozen=True)
class CertainLabel:
    """A predicted label map, of which only certain pixels are kept.

    confidence: the file of its confidence map.  least: of each train id, the smallest confidence to keep, in 65535ths.
    """

    label: PictureLabel
    confidence: File
    least: tuple[int, ...]

    def __str__(self) -> str:
        return str(self.label)

    def size(self) -> tuple[int, int]:
        return self.label.size()

    def digest(self) -> str:
        return self._joint(self.label.digest(), bytes(self.confidence.read()))

    def decode(self) -> Label:
        found, levels = self.label.decode(), confidence_levels(self.confidence)
        if levels.shape != found.array.shape:
            got, wanted = levels.shape, found.array.shape
            raise InputError(
                f"'{self.confidence.where}' is {got[1]}×{got[0]} pixels, wanted {wanted[1]}×{wanted[0]} as its label map",
                "predict again into another folder",
            )
        table = np.zeros(256, np.uint32)
        table[: len(self.least)] = self.least
        array = np.where(levels < table[found.array], IGNORED, found.array).astype(np.uint8)
        sha256 = self._joint(found.sha256, bytes(self.confidence.read()))
        return Label(array, sha256, found.byte_count, found.unknown)

    @staticmethod
    def _joint(label: str, confidence: bytes) -> str:
        return hashlib.sha256(f"{label} {hashlib.sha256(confidence).hexdigest()}".encode()).hexdigest()


def confidence_levels(file: File) -> NDArray[np.uint16]:
    """A confidence map in 65535ths, uint16 (H, W); one of 8 bits is in 255ths in its file. Raises InputError that names the
    file."""
    found = read_label(file)
    return found.astype(np.uint16) * np.uint16(LEVELS // 255) if found.dtype == np.uint8 else found.astype(np.uint16)


@dataclass(frozen=True)
class MinConfidence:
    """What `--min-confidence` says: the least confidence of each class by name, of all others, and the fraction to keep of
    each."""

    text: str
    of_class: Mapping[str, float]
    others: float = 0.0
    balanced: float | None = None

    @classmethod
    def parse(cls, text: str, classes: Sequence[str]) -> "MinConfidence":
        """classes: the names there are. Raises InputError that says which part is wrong."""
        wanted = "give numbers from 0 to 1, such as 0.9, road=0.9,sky=0.8, balanced=0.5, or a YAML file of these"
        said: dict[str, object] = {}
        if Path(text).is_file():
            try:
                tree = load_yaml(Path(text).read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
                raise InputError(f"--min-confidence: '{text}' cannot be read: {' '.join(str(error).split())}", wanted) from error
            if not isinstance(tree, dict):
                raise InputError(f"--min-confidence: '{text}' does not map names to numbers", wanted)
            said = {str(name): value for name, value in tree.items()}
        else:
            for part in text.split(","):
                name, equals, value = part.rpartition("=")
                key = name.strip() if equals else OTHERS
                if key in said:
                    raise InputError(f"--min-confidence is '{text}', which says '{key}' twice", wanted)
                said[key] = value.strip()
        numbers = {name: cls._number(text, name, value, wanted) for name, value in said.items()}
        unknown = next((name for name in numbers if name not in (*classes, BALANCED, OTHERS)), None)
        if unknown is not None:
            close = did_you_mean(unknown, list(classes))
            raise InputError(f"--min-confidence names the class '{unknown}', which the labels do not have{close}", wanted)
        if numbers.get(BALANCED) == 0:
            raise InputError(f"--min-confidence is '{text}': 'balanced' is 0, which keeps no pixel, wanted more than 0", wanted)
        of_class = {name: number for name, number in numbers.items() if name in classes}
        return cls(text, of_class, numbers.get(OTHERS, 0.0), numbers.get(BALANCED))

    @staticmethod
    def _number(text: str, name: str, value: object, wanted: str) -> float:
        try:
            number = float(str(value))
        except ValueError:
            number = -1.0
        if not 0 <= number <= 1:
            what = "" if name == OTHERS else f" for '{name}'"
            raise InputError(f"--min-confidence is '{text}': got '{value}'{what}, wanted a number from 0 to 1", wanted)
        return number

    def least(self, classes: Sequence[str], labels: Iterable[tuple[LabelFile, File]]) -> tuple[int, ...]:
        """The smallest confidence to keep of each class, in 65535ths.

        labels: every predicted label map with its confidence map, read only for `balanced`.
        """
        least = [round(self.of_class.get(name, self.others) * LEVELS) for name in classes]
        if self.balanced is None:
            return tuple(least)
        counts = np.zeros((len(classes), LEVELS + 1), np.int64)
        for label, confidence in labels:
            ids, levels = label.decode().array, confidence_levels(confidence)
            if ids.shape == levels.shape:  # another size is refused where the sample is read
                known = ids < len(classes)
                places = ids[known].astype(np.int64) * (LEVELS + 1) + levels[known]
                counts += np.bincount(places, minlength=counts.size).reshape(counts.shape)
        return tuple(max(pair) for pair in zip(least, certain_fraction(counts, self.balanced), strict=True))


def certain_fraction(counts: NDArray[np.int64], fraction: float) -> list[int]:
    """For each class the highest level at which at least `fraction` of its pixels are that certain or more.

    counts: int64 (C, L), the pixels of each class at each level of confidence.  fraction: above 0, at most 1.  Pixels of equal
    confidence are kept together, so a little more than the fraction may stay.
    """
    from_here = counts[:, ::-1].cumsum(1)[:, ::-1]  # pixels at this level or a higher one
    enough = from_here >= np.ceil(fraction * counts.sum(1, keepdims=True) - 1e-9)
    return [int(np.flatnonzero(row)[-1]) for row in enough]


def predicted_labels(
    found: Predictions, labels: Mapping[str, PictureLabel], classes: OwnClasses, text: str | None
) -> tuple[Mapping[str, LabelFile], PredictedLabels, tuple[int, ...]]:
    """The labels of each sample with uncertain pixels ignored, who made them, and the least confidences that were applied.

    text: what --min-confidence says.  Raises InputError for classes it does not know, and where there are no confidence maps.
    """
    made = {name: label for name, label in labels.items() if found.is_predicted(label.picture.file)}
    who = PredictedLabels(found.network, found.record.weights_sha256, text, tuple(sorted(made)))
    if text is None:
        return labels, who, ()
    names = classes.table.names
    limits = MinConfidence.parse(text, names)
    if not found.confidences:
        raise InputError(
            f"--min-confidence is '{text}', but {found.labels.given} has no confidence maps",
            "predict again with --confidence into another folder",
        )
    confidence = {name: found.confidences[place_of(label.picture.file)] for name, label in made.items()}
    least = limits.least(names, ((label, confidence[name]) for name, label in made.items()))
    certain = {name: CertainLabel(label, confidence[name], least) for name, label in made.items()}
    return {**labels, **certain}, who, least
