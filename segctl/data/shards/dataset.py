"""A prepared dataset: its shards and its dataset.json, opened."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from segctl.commands import command_line
from segctl.data.classes import ClassTable
from segctl.data.datasets import KNOWN, known_names, unknown_dataset
from segctl.data.datasets.own import LINE as OWN_LINE
from segctl.data.shards.reader import ShardReader
from segctl.data.shards.writer import FORMAT
from segctl.errors import InputError, did_you_mean

INDEX_NAME = "dataset.json"


class DamagedIndexError(InputError):
    """There is a dataset.json, but not as it was written."""


@dataclass(frozen=True)
class SampleRecord:
    """Where a sample lies and what it must hold. `pixels_sha256` covers image and label as decoded."""

    shard: int
    height: int
    width: int
    source_bytes: int
    source_sha256: str
    pixels_sha256: str
    unknown_pixels: int = 0
    """Pixels of a colour that is no class's: they are ignored."""


@dataclass(frozen=True)
class Provenance:
    """Where the shards come from and how they were made."""

    origin: str
    rule: str
    decoder: str
    codec: str
    segctl: str
    created: str
    limit: int | None = None
    """At most so many samples of each split were packed, for a trial; None for all."""
    notes: list[str] = field(default_factory=list)
    """What was left out or differs from the official dataset, in sentences."""


@dataclass(frozen=True)
class PackedDataset:
    """A prepared dataset. Opening it reads dataset.json alone; shards are opened when a sample is read.

    Can be pickled, and used under fork, spawn and forkserver.
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
    """Of each whole file, as `tiles.file_hash` gives it."""
    samples: dict[str, SampleRecord]
    reader: ShardReader

    @property
    def trial(self) -> str:
        """Words that say that this is a trial and not the whole dataset; empty for a whole one."""
        limit = self.provenance.limit
        return "" if limit is None else f"a trial: at most {limit} {'sample' if limit == 1 else 'samples'} of each split"

    def names(self, split: str) -> list[str]:
        """The samples of a split. Raises InputError naming the splits there are."""
        if split not in self.splits:
            known = list(self.splits)
            raise InputError(
                f"dataset '{self.name}' has no split called '{split}'{did_you_mean(split, known)}", f"it has {', '.join(known)}"
            )
        return self.splits[split]

    def size(self, name: str) -> tuple[int, int]:
        """(H, W) of a sample, in pixels."""
        record = self.samples[name]
        return record.height, record.width

    def shard_bytes(self) -> int:
        """What the shards take on the disk."""
        return sum((self.folder / shard).stat().st_size for shard in self.shards)

    def source_bytes(self) -> int:
        """What the files took that the samples were made from."""
        return sum(record.source_bytes for record in self.samples.values())

    def unknown_pixels(self) -> dict[str, int]:
        """Pixels of a colour that is no class's, for the samples that have some."""
        return {name: record.unknown_pixels for name, record in self.samples.items() if record.unknown_pixels}

    def image(self, name: str, top: int = 0, left: int = 0, height: int | None = None, width: int | None = None) -> np.ndarray:
        """uint8 (h, w, 3) RGB of the sample or of a region of it; only the tiles of the region are read."""
        return self._read("images", name, (top, left, height, width))

    def label(self, name: str, top: int = 0, left: int = 0, height: int | None = None, width: int | None = None) -> np.ndarray:
        """uint8 (h, w) train ids, 255 ignored."""
        return self._read("labels", name, (top, left, height, width))

    def instance(self, name: str) -> np.ndarray | None:
        """uint16 (H, W) of the sample's instance map as its source gives it; None where it has none."""
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


def open_dataset(data_root: Path, name: str) -> PackedDataset:
    """Open a prepared dataset. Raises InputError, with the line that prepares it, where it is not there."""
    folder = data_root / name
    if not (folder / INDEX_NAME).is_file():
        raise _not_there(data_root, name)
    try:
        index = json.loads((folder / INDEX_NAME).read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise _other_format(folder, index["format"])
        if index.get("checksum") != _checksum(index):
            raise ValueError("it does not match its own checksum")
        return _from_index(folder, index)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedIndexError(
            f"'{folder / INDEX_NAME}' is no index that this segctl can read ({error})",
            f"run `{prepare_line(name, data_root)}` again",
        ) from error


def _other_format(folder: Path, found: object) -> InputError:
    return InputError(
        f"'{folder}' was prepared by {'an older' if found == 1 else 'another'} segctl: its format is {found}, wanted {FORMAT}",
        f"run `{prepare_line(folder.name, folder.parent)}` again",
    )


def _from_index(folder: Path, index: Mapping[str, Any]) -> PackedDataset:
    return PackedDataset(
        name=index["name"],
        folder=folder,
        classes=ClassTable.from_json(index["classes"]),
        splits=index["splits"],
        groups=index["groups"],
        fingerprint=index["fingerprint"],
        provenance=Provenance(**index["provenance"]),
        shards=tuple(index["shards"]),
        shard_hashes=tuple(index["shards"].values()),
        samples={name: SampleRecord(**record) for name, record in index["samples"].items()},
        reader=ShardReader([folder / shard for shard in index["shards"]]),
    )


def to_index(dataset: PackedDataset) -> dict[str, Any]:
    """The content of dataset.json."""
    return signed(_content(dataset))


def index_text(index: Mapping[str, Any]) -> str:
    """dataset.json, to the byte."""
    return json.dumps(index, indent=1, ensure_ascii=False) + "\n"


def is_as_written(folder: Path) -> bool:
    """Whether not even a space of dataset.json has changed, which its checksum would not notice."""
    text = (folder / INDEX_NAME).read_text(encoding="utf-8")
    return index_text(json.loads(text)) == text


def signed(index: Mapping[str, Any]) -> dict[str, Any]:
    """The index with its checksum, so that no byte of dataset.json can change unnoticed."""
    return {**index, "checksum": _checksum(index)}


def _checksum(index: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in index.items() if key != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _content(dataset: PackedDataset) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "provenance": asdict(dataset.provenance),
        "classes": dataset.classes.to_json(),
        "counts": {split: len(names) for split, names in dataset.splits.items()},
        "splits": dataset.splits,
        "groups": dataset.groups,
        "shards": dict(zip(dataset.shards, dataset.shard_hashes, strict=True)),
        "samples": {name: asdict(record) for name, record in dataset.samples.items()},
    }


def fingerprint(rule: str, source_sha256: Mapping[str, str]) -> str:
    """sha256 over the rule and the sorted (name, hash of source bytes) pairs."""
    lines = [rule, *(f"{name} {source_sha256[name]}" for name in sorted(source_sha256))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def pixels_sha256(image: np.ndarray, label: np.ndarray) -> str:
    """Hash of a sample as decoded: sizes, image, label."""
    digest = hashlib.sha256(repr((image.shape, label.shape)).encode())
    digest.update(np.ascontiguousarray(image).data)
    digest.update(np.ascontiguousarray(label).data)
    return digest.hexdigest()


def prepare_line(name: str, data_root: Path | None = None) -> str:
    """The command that prepares a dataset in the data root."""
    known = next((dataset for dataset in KNOWN if dataset.name == name), None)
    what = OWN_LINE.split() if known is None else ["--source", "FOLDER"] if known.needs_source else []
    return command_line("data", "prepare", name, *what, data_root=data_root)


def _not_there(data_root: Path, name: str) -> InputError:
    here = [path.parent.name for path in sorted(data_root.glob(f"*/{INDEX_NAME}"))] if data_root.is_dir() else []
    if name in known_names():
        return InputError(f"dataset '{name}' is not prepared in '{data_root}'", f"run `{prepare_line(name, data_root)}`")
    if close := did_you_mean(name, here):
        return InputError(f"there is no dataset called '{name}' in '{data_root}'{close}", f"it holds {', '.join(here)}")
    return unknown_dataset(name)
