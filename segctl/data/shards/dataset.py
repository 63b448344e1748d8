"""A prepared dataset: its shards and its dataset.json, opened."""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from segctl.commands import ROOT_FILE, url_of
from segctl.data.advice import not_prepared, prepare_again
from segctl.data.classes import ClassTable, LabelCounts, LabelJudgement, judge_labels
from segctl.data.files.bands import BandScaling
from segctl.data.files.remote import fetch_index
from segctl.data.raters import RaterRecord
from segctl.data.shards.shard import SHARD_FORMAT, ShardReader
from segctl.data.source import PredictedLabels
from segctl.errors import InputError, did_you_mean
from segctl.files import as_record, parse_json, parse_record, read_plain_text
from segctl.pixel_types import PixelType

INDEX_NAME = "dataset.json"


class DamagedIndexError(InputError):
    """A dataset.json exists, but it is damaged."""


@dataclass(frozen=True)
class SampleRecord:
    """In which shard a sample lies, and what it must hold. `pixels_sha256` covers image and label as decoded."""

    shard: int
    height: int
    width: int
    source_bytes: int
    source_sha256: str
    pixels_sha256: str
    unknown_pixels: int = 0
    """Pixels whose colour belongs to no class; they are ignored."""
    class_pixels: dict[str, int] | None = None
    """The pixels of each class that the label shows, by train id (text, because JSON has no other keys); None if an older segctl
    packed the sample."""
    labelled: bool = True
    """Whether the sample has a label at all. A label whose pixels are all ignored is one too."""
    raters: RaterRecord | None = None
    """What several raters answered; None for a single label map."""

    def to_json(self) -> dict[str, Any]:
        """The fields; the last two only where they say something, so that the index of other datasets is as it always was."""
        found = asdict(self)
        if self.labelled:
            del found["labelled"]
        if self.raters is None:
            del found["raters"]
        return found


@dataclass(frozen=True)
class Provenance:
    """What the shards were made from, and how."""

    origin: str
    rule: str
    decoder: str
    codec: str
    segctl: str
    created: str
    limit: int | None = None
    """The most samples of each split that a trial packed; None for the whole dataset."""
    notes: list[str] = field(default_factory=list)
    """What was left out or differs from the official dataset, in sentences."""
    predicted: PredictedLabels | None = None
    """Which labels a network made; None if people made all of them."""
    repeated: dict[str, str] | None = None
    """source_sha256 of the unlabelled pictures that were left out because another sample shows the same; None without any."""

    def to_json(self) -> dict[str, Any]:
        """The fields; the last two only where there is something to say, so that other indexes are as they always were."""
        absent = [key for key in ("predicted", "repeated") if getattr(self, key) is None]
        return {key: value for key, value in asdict(self).items() if key not in absent}


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared dataset. Opening it reads dataset.json alone; shards are opened when a sample is read.

    It can be pickled, and used under fork, spawn and forkserver.
    """

    name: str
    folder: Path
    classes: ClassTable
    splits: dict[str, list[str]]
    groups: dict[str, str] | None
    fingerprint: str
    """Hash over names, source bytes and rule version: the same on any machine, with any codec and number of workers."""
    provenance: Provenance
    shards: tuple[str, ...]
    shard_hashes: tuple[str, ...]
    """`tiles.file_hash` of each shard."""
    shard_contents: tuple[str, ...] | None
    """`ShardReader.content_hash` of each shard, which opening it compares; None if an older segctl packed the dataset."""
    samples: dict[str, SampleRecord]
    reader: ShardReader
    label_counts: dict[str, LabelCounts] | None = None
    """What the labels of each split show; None for a dataset of an older segctl."""
    pixels: BandScaling | None = None
    """How the bands of its picture files became those of its images, and their statistics; None for 8-bit colour."""

    @property
    def bands(self) -> int:
        """How many bands an image has."""
        return 3 if self.pixels is None else len(self.pixels.bands)

    @property
    def pixel_type(self) -> PixelType:
        """The type of the numbers in its images."""
        return "uint8" if self.pixels is None else self.pixels.pixel_type

    @property
    def trial(self) -> str:
        """Words for a trial, which is not the whole dataset; empty for a whole dataset."""
        limit = self.provenance.limit
        return "" if limit is None else f"a trial: at most {limit} {'sample' if limit == 1 else 'samples'} of each split"

    def names(self, split: str) -> list[str]:
        """The samples of a split. Raises InputError that lists the splits for an unknown one."""
        if split not in self.splits:
            known = list(self.splits)
            raise InputError(
                f"dataset '{self.name}' has no split called '{split}'{did_you_mean(split, known)}", f"it has {', '.join(known)}"
            )
        return self.splits[split]

    def has_label(self, name: str) -> bool:
        """Whether the sample has a label; one of a split of pictures without labels has none."""
        return self.samples[name].labelled

    def labelled_names(self, split: str, field: str) -> list[str]:
        """The samples of a split whose labels are needed. `field` is the setting or option that names the split.

        Raises InputError for an unknown split, and for one that holds pictures without labels.
        """
        names = self.names(split)
        lacking = sum(not self.has_label(name) for name in names)
        if lacking:
            what = "none of its pictures has a label" if lacking == len(names) else f"{lacking} of its pictures have no label"
            good = [other for other, listed in self.splits.items() if all(map(self.has_label, listed))]
            raise InputError(
                f"{field}: got '{split}' of dataset '{self.name}', but {what}",
                f"give a split with labels: {', '.join(good)}; pictures without labels go to data.unlabelled",
            )
        return names

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) of a sample, in pixels."""
        record = self.samples[name]
        return record.height, record.width

    def usual_size(self, split: str) -> tuple[int, int]:
        """(H, W) of most samples of a split, in pixels; the larger of two that are as frequent. InputError for no such split."""
        counts = Counter(map(self.size, self.names(split)))
        return max(counts, key=lambda size: (counts[size], size))

    def shard_bytes(self) -> int:
        """Size of all shards on the disk."""
        return sum(self.reader.file_bytes(index) for index in range(len(self.shards)))

    def source_bytes(self) -> int:
        """Size of the files that the samples were made from."""
        return sum(record.source_bytes for record in self.samples.values())

    def unknown_pixels(self) -> dict[str, int]:
        """The number of pixels whose colour belongs to no class, for each sample that has some."""
        return {name: record.unknown_pixels for name, record in self.samples.items() if record.unknown_pixels}

    def judged_labels(self, splits: Collection[str] = ()) -> LabelJudgement:
        """What the labels of some splits show, or of all, judged by the counts in dataset.json; no shard is read.

        A dataset that an older segctl prepared has no counts and gets no judgement.
        """
        counts = {
            split: found
            for split, found in (self.label_counts or {}).items()
            if (not splits or split in splits) and len(found.classes) == self.classes.num_classes
        }
        found = judge_labels(counts, self.classes, "correct the labels or the class table, then prepare it again")
        if self.trial:  # a trial may lack any class
            return LabelJudgement([], [*(finding.problem for finding in found.certain), *found.warnings])
        return found

    def image(self, name: str, top: int = 0, left: int = 0, height: int | None = None, width: int | None = None) -> np.ndarray:
        """The sample or a region of it, (h, w, bands) of `pixel_type`, RGB where 3; only the tiles it touches are read."""
        return self._read("images", name, (top, left, height, width))

    def label(self, name: str, top: int = 0, left: int = 0, height: int | None = None, width: int | None = None) -> np.ndarray:
        """uint8 (h, w) train ids, 255 ignored, of the sample or of a region of it. Raises InputError for one without label."""
        if not self.has_label(name):
            raise InputError(f"sample '{name}' of dataset '{self.name}' has no label", "give a split whose pictures have labels")
        return self._read("labels", name, (top, left, height, width))

    def votes(self, name: str, top: int = 0, left: int = 0, height: int | None = None, width: int | None = None) -> np.ndarray:
        """uint8 (h, w) of a sample or of a region of it: the number of each pixel's ballot in `raters_of`."""
        return self._read("votes", name, (top, left, height, width))

    def raters_of(self, name: str) -> RaterRecord:
        """What the raters of a sample answered. Raises InputError for a sample with a single label map."""
        record = self.samples[name].raters
        if record is None:
            raise InputError(
                f"sample '{name}' of dataset '{self.name}' has one label map, wanted those of several raters",
                "set labels.kind to hard, or prepare the dataset with several --labels",
            )
        return record

    @property
    def most_raters(self) -> int:
        """How many raters labelled the picture that most of them labelled; 0 where pictures have single label maps."""
        return max((len(each.raters.weights) for each in self.samples.values() if each.raters is not None), default=0)

    def has_raters(self, split: str) -> bool:
        """Whether every sample of a split has the label maps of several raters."""
        return all(self.samples[name].raters is not None for name in self.names(split))

    def instance(self, name: str) -> np.ndarray | None:
        """uint16 (H, W): the sample's instance map as its source gives it; None if it has none."""
        shard = self.samples[name].shard
        return self._read("instances", name, (0, 0, None, None)) if self.reader.holds(shard, "instances", name) else None

    def _read(self, group: str, name: str, region: tuple[int, int, int | None, int | None]) -> np.ndarray:
        record = self.samples[name]
        top, left, height, width = region
        height = record.height - top if height is None else height
        width = record.width - left if width is None else width
        if not (0 <= top < top + height <= record.height and 0 <= left < left + width <= record.width):
            raise ValueError(f"region {top, left, height, width} is not inside '{name}' of {record.height}×{record.width}")
        return self.reader.read(record.shard, group, name, (top, left, height, width))


class _Format(BaseModel):
    """What a dataset.json of any segctl holds."""

    format: int


class _Index(BaseModel):
    """The content of dataset.json."""

    name: str
    fingerprint: str
    provenance: Provenance
    classes: ClassTable
    splits: dict[str, list[str]]
    groups: dict[str, str] | None
    shards: dict[str, str]
    contents: dict[str, str] | None = None
    samples: dict[str, SampleRecord]
    labels: dict[str, LabelCounts] | None = None
    pixels: BandScaling | None = None


def open_dataset(data_root: Path, name: str) -> PreparedDataset:
    """Open a prepared dataset. Raises InputError, with the line that prepares it, if it is not there or cannot be read."""
    folder = data_root / name
    if (data_root / ROOT_FILE).is_file():
        fetch_index(folder, INDEX_NAME)
    if not (folder / INDEX_NAME).is_file():
        if (url := url_of(data_root)) is not None:
            raise InputError(f"there is no dataset '{name}' at '{url}'", f"wanted {url}/{name}/{INDEX_NAME}")
        here = [path.parent.name for path in sorted(data_root.glob(f"*/{INDEX_NAME}"))] if data_root.is_dir() else []
        raise not_prepared(name, data_root, here)
    try:
        return _open(folder)
    except InputError as error:
        raise type(error)(error.message, prepare_again(name, data_root)) from error


def find_dataset(data_root: Path, name: str) -> PreparedDataset | None:
    """The prepared dataset; None if there is none that this segctl can read."""
    if (data_root / ROOT_FILE).is_file():
        fetch_index(data_root / name, INDEX_NAME)
    if not (data_root / name / INDEX_NAME).is_file():
        return None
    try:
        return _open(data_root / name)
    except InputError:
        return None


def _open(folder: Path) -> PreparedDataset:
    path = folder / INDEX_NAME
    try:
        text = read_plain_text(path)
        tree = parse_json(text, f"'{path}'")
        version = as_record(tree, _Format, f"'{path}'").format
        if version == SHARD_FORMAT and tree.get("checksum") != _checksum(tree):
            raise InputError(f"'{path}' is damaged: it does not match its own checksum")
        index = parse_record(text, _Index, f"'{path}'") if version == SHARD_FORMAT else None
    except InputError as error:
        raise DamagedIndexError(error.message) from error
    if index is None:
        made_by = "an older segctl" if version == 1 else "another segctl"
        raise InputError(f"'{folder}' was prepared by {made_by}: its format is {version}, wanted {SHARD_FORMAT}")
    contents = None if index.contents is None else tuple(index.contents.get(shard, "") for shard in index.shards)
    return PreparedDataset(
        name=index.name,
        folder=folder,
        classes=index.classes,
        splits=index.splits,
        groups=index.groups,
        fingerprint=index.fingerprint,
        provenance=index.provenance,
        shards=tuple(index.shards),
        shard_hashes=tuple(index.shards.values()),
        shard_contents=contents,
        samples=index.samples,
        reader=ShardReader([folder / shard for shard in index.shards], INDEX_NAME, contents),
        label_counts=index.labels,
        pixels=index.pixels,
    )


def to_index(dataset: PreparedDataset) -> dict[str, Any]:
    """The content of dataset.json."""
    contents = dataset.shard_contents
    return signed(
        {
            "format": SHARD_FORMAT,
            "name": dataset.name,
            "fingerprint": dataset.fingerprint,
            "provenance": dataset.provenance.to_json(),
            "classes": dataset.classes.to_json(),
            "counts": {split: len(names) for split, names in dataset.splits.items()},
            "splits": dataset.splits,
            "groups": dataset.groups,
            **({} if dataset.label_counts is None else {"labels": _label_index(dataset.label_counts)}),
            **({} if dataset.pixels is None else {"pixels": dataset.pixels.model_dump(mode="json")}),
            "shards": dict(zip(dataset.shards, dataset.shard_hashes, strict=True)),
            **({} if contents is None else {"contents": dict(zip(dataset.shards, contents, strict=True))}),
            "samples": {name: record.to_json() for name, record in dataset.samples.items()},
        }
    )


def _label_index(counts: Mapping[str, LabelCounts]) -> dict[str, Any]:
    found = {split: {**asdict(labels), "classes": list(labels.classes)} for split, labels in counts.items()}
    for labels in found.values():
        if not labels["remarks"]:  # only drawn annotations have any
            del labels["remarks"]
    return found


def signed(index: Mapping[str, Any]) -> dict[str, Any]:
    """The index with its checksum, so that no byte of dataset.json can change unnoticed."""
    return {**index, "checksum": _checksum(index)}


def _checksum(index: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in index.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def index_text(index: Mapping[str, Any]) -> str:
    """dataset.json, to the byte."""
    return json.dumps(index, indent=1, ensure_ascii=False) + "\n"


def is_as_written(folder: Path) -> bool:
    """Whether dataset.json is unchanged to the last space, which its checksum does not cover."""
    text = (folder / INDEX_NAME).read_text(encoding="utf-8")
    return index_text(json.loads(text)) == text


def fingerprint(rule: str, source_sha256: Mapping[str, str]) -> str:
    """sha256 over the rule and the sorted (name, hash of source bytes) pairs."""
    lines = [rule, *(f"{name} {source_sha256[name]}" for name in sorted(source_sha256))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def pixels_sha256(image: np.ndarray, label: np.ndarray | None, votes: np.ndarray | None = None) -> str:
    """Hash of a decoded sample: shapes, image (H, W, bands) of uint8 or uint16, label uint8 (H, W) or None where it has none.

    votes: uint8 (H, W), the ballots of a sample with several raters; the hash of other samples is as it always was.
    """
    digest = hashlib.sha256(repr((image.shape, None if label is None else label.shape)).encode())
    digest.update(np.ascontiguousarray(image).data)
    if label is not None:
        digest.update(np.ascontiguousarray(label).data)
    if votes is not None:
        digest.update(np.ascontiguousarray(votes).data)
    return digest.hexdigest()
