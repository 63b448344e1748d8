"""What `data check` does: every sample of a prepared dataset is read back whole and compared with what was packed."""

import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from segctl.data.classes import LabelCounts, counts_of_splits
from segctl.data.datasets.pairs import guess_label_ids
from segctl.data.findings import Finding
from segctl.data.inspect.duplicates import Pictures
from segctl.data.prepare import staging_folder
from segctl.data.shards.dataset import (
    INDEX_NAME,
    DamagedIndexError,
    PreparedDataset,
    fingerprint,
    is_as_written,
    open_dataset,
    pixels_sha256,
)
from segctl.data.shards.shard import MISSING
from segctl.data.shards.tiles import file_hash
from segctl.data.splits import overlaps
from segctl.errors import SegctlError
from segctl.ignored import IGNORED


def check(
    data_root: Path,
    name: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
    warn: Callable[[str], None] = lambda text: None,
) -> list[Finding]:
    """All problems of a prepared dataset. Raises InputError if there is no such dataset.

    warn: gets a sentence for what is likely a problem and not certain, such as a class that no label shows.
    """
    if not (data_root / name).exists() and staging_folder(data_root, name).exists():
        return [Finding("", "incomplete: preparing it was interrupted")]
    try:
        dataset = open_dataset(data_root, name)
    except DamagedIndexError as error:
        return [Finding("", error.message, error.hint)]
    pictures = Pictures(dataset.splits, dataset.image, grouped=dataset.groups is not None)
    labels: dict[str, LabelCounts] = {}
    try:
        found = [
            *overlaps(dataset.splits),
            *_index_findings(dataset),
            *_shard_findings(dataset, pictures, labels, progress),
            *pictures.findings(),
        ]
        if dataset.label_counts is None:  # an older segctl stored no counts
            dataset = replace(dataset, label_counts=counts_of_splits(dataset.splits, labels))
        judged = dataset.judged_labels()
        for text in judged.warnings:
            warn(text)
        return [*found, *judged.certain]
    finally:
        dataset.reader.close()


def _index_findings(dataset: PreparedDataset) -> Iterator[Finding]:
    for split, names in dataset.splits.items():
        for sample in sorted(set(names) - dataset.samples.keys()):
            yield Finding(sample, f"is listed in '{split}' but not packed")
    if not is_as_written(dataset.folder):
        yield Finding("", f"'{INDEX_NAME}' is not as it was written, although its content is the same")
    sources = {name: record.source_sha256 for name, record in dataset.samples.items()}
    if fingerprint(dataset.provenance.rule, sources) != dataset.fingerprint:
        yield Finding("", "dataset.json does not match its own fingerprint")


def _shard_findings(
    dataset: PreparedDataset, pictures: Pictures, labels: dict[str, LabelCounts], progress: Callable[[int, int], None]
) -> Iterator[Finding]:
    missing: set[int] = set()
    for index, shard in enumerate(dataset.shards):
        if problem := dataset.reader.problem(index):
            missing.add(index)
            count = sum(record.shard == index for record in dataset.samples.values())
            gone = problem == MISSING
            lost = f"incomplete: '{shard}' with {count} samples is missing"
            yield Finding("", lost if gone else f"'{shard}' with {count} samples cannot be opened: {problem}")
    hurt: set[int] = set()
    for done, (name, record) in enumerate(dataset.samples.items(), start=1):
        if record.shard not in missing and (problem := _sample_problem(dataset, name, pictures, labels)):
            hurt.add(record.shard)
            yield Finding(name, problem)
        progress(done, len(dataset.samples))
    for index in sorted(set(range(len(dataset.shards))) - missing - hurt):
        if file_hash(dataset.reader.whole_file(index)) != dataset.shard_hashes[index]:
            yield Finding("", f"'{dataset.shards[index]}' has changed, though every sample in it is as it was packed")


def _sample_problem(dataset: PreparedDataset, name: str, pictures: Pictures, labels: dict[str, LabelCounts]) -> str:
    """The problem of one sample, or an empty string.

    Adds the image to `pictures`, to be compared with others, and what the label shows to `labels`.
    """
    record = dataset.samples[name]
    wanted = (record.height, record.width)
    try:
        groups = ("images", "labels") if record.labelled else ("images",)
        stored = [dataset.reader.shape(record.shard, group, name)[:2] for group in groups]
        if any(size != wanted for size in stored):
            found = " and ".join(f"{group[:-1]} {_words(size)}" for group, size in zip(groups, stored, strict=True))
            return f"{found.replace(' ', ' is ', 1)}, wanted {_words(wanted)}"
        if not record.labelled and dataset.reader.holds(record.shard, "labels", name):
            return "has a label, but dataset.json says that it has none"
        image, label = dataset.image(name), dataset.label(name) if record.labelled else None
        votes = None if record.raters is None else dataset.votes(name)
        dataset.instance(name)
    except SegctlError as error:
        return error.message
    if pixels_sha256(image, label, votes) != record.pixels_sha256:
        return "does not hold the pixels that were packed"
    pictures.add(name, image.shape, zlib.crc32(np.ascontiguousarray(image).data))
    if label is None:
        return ""
    classes = dataset.classes.num_classes
    labels[name] = LabelCounts.of(label, classes, {})
    present = np.unique(label)
    wrong = present[(present >= classes) & (present != IGNORED)]
    guess = guess_label_ids(set(present.tolist()), classes)
    return f"label holds id {wrong[0]}, wanted 0 to {classes - 1} or {IGNORED}{guess}" if wrong.size else ""


def _words(size: tuple[int, ...]) -> str:
    return f"{size[1]}×{size[0]}"
