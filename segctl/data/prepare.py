"""Sources to shards, in parallel, whole or not at all.

Everything is written into `<data-root>/.<name>.writing`, and that folder is renamed once its dataset.json is there: a dataset's
folder is always complete, and an older dataset stays in place until the new one is. One process works at a time, by
`<data-root>/.<name>.lock`. Which sample goes into which shard depends on the samples alone, never on the number of processes.

An interrupted conversion resumes. It leaves its whole shards behind, each with a record that was written after it: the samples,
the hash of the file, and a key over everything that decides what the shard holds. The next attempt keeps a shard if key, file
and the bytes of every source still agree.
"""

import json
import math
import os
import re
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from segctl import __version__
from segctl.data.classes import LabelCounts, counts_of_splits, judge_labels
from segctl.data.files.bands import BandScaling
from segctl.data.files.lock import locked, made_folder, remove_abandoned
from segctl.data.findings import Finding, refusal
from segctl.data.inspect.duplicates import Pictures
from segctl.data.shard_processes import in_processes
from segctl.data.shards.dataset import (
    INDEX_NAME,
    PreparedDataset,
    Provenance,
    SampleRecord,
    find_dataset,
    fingerprint,
    index_text,
    open_dataset,
    pixels_sha256,
    to_index,
)
from segctl.data.shards.shard import SHARD_FORMAT, Codec, ShardReader, write_shard
from segctl.data.shards.tiles import file_hash
from segctl.data.source import RawSample, Source
from segctl.data.splits import overlaps
from segctl.errors import InputError, SegctlError
from segctl.files import Progress, content_key, read_record, sweep_partial, write_text
from segctl.pixel_types import LARGEST, PixelType
from segctl.runtime.cores import core_count

SHARD_BYTES = 2**29
MIN_SHARDS, MIN_SHARD_SAMPLES = 4, 32
LEAST_DEVIATION: dict[PixelType, float] = {"uint8": 1.0, "uint16": 0.05}
"""A band whose numbers deviate less from their mean counts as one value. uint16 may hold small numbers that matter, such as
a band of 0 and 1; one level is then still at most 20 deviations."""

Records = dict[str, SampleRecord]


@dataclass(frozen=True)
class Conversion:
    """What to write: `shards` pairs each file's name with the names of its samples."""

    source: Source
    folder: Path
    codec: Codec
    shards: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def total(self) -> int:
        return sum(len(names) for _, names in self.shards)


@dataclass(frozen=True)
class WrittenShard:
    """A whole shard: its file's name, the hash of the file, what each sample became, and what each label shows.

    labels: without the samples that have no label.  images: CRC-32 of each image's pixels.
    """

    filename: str
    file_hash: str
    records: Records
    labels: dict[str, LabelCounts]
    images: dict[str, int]


def prepare_source(
    source: Source,
    data_root: Path,
    *,
    codec: Codec = "lz4",
    workers: int | None = None,
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
) -> PreparedDataset:
    """Convert a source into `<data_root>/<name>`, or return the dataset that is there if it was made from the same bytes.

    workers: processes, None for one per core.  limit: the most samples of each split, for a trial.
    Raises InputError before anything is written if the source, the codec or the data root does not fit.
    """
    if source.problems:
        raise refusal(source.problems)
    listed_twice = sum(map(len, source.splits.values())) > len(_names(source))
    if listed_twice and (shared := overlaps(source.splits)):
        hint = "take each sample out of one of them, so that no network is scored on what it was trained on"
        raise refusal([Finding(one.sample, f"sample '{one.sample}' {one.problem}", hint) for one in shared])
    whole, source = source, source if limit is None else _limited(source, limit)
    limit = None if source.splits == whole.splits else limit
    lock = data_root / f".{source.name}.lock"
    if (finished := _find_current(source, data_root, codec, limit)) is not None:
        remove_abandoned(lock)  # a process may be killed after it has put the dataset in place
        return finished
    sizes = {name: source.samples.size(name) for name in _names(source)}
    _check_place(data_root, source.name)
    with (
        made_folder(data_root, "the data root"),
        locked(lock, f"preparing '{source.name}' in '{data_root}'"),
    ):
        staging = staging_folder(data_root, source.name)
        conversion = Conversion(source, staging, codec, plan_shards(source.name, sizes, _pixel_bytes(source)))
        _keep_only(staging, conversion)
        try:
            shards = convert(conversion, core_count() if workers is None else workers, progress)
            try:
                _write_index(conversion, shards, limit)
            except InputError:  # the labels do not fit the class table, so no shard is of use to the next attempt
                shutil.rmtree(staging, ignore_errors=True)
                raise
            return _put_in_place(staging, data_root, source.name)
        finally:
            if staging.is_dir() and not any(staging.glob("*.h5")):
                shutil.rmtree(staging, ignore_errors=True)  # without a whole shard it is of no use to the next attempt


def _limited(source: Source, limit: int) -> Source:
    """The source with at most `limit` samples of each split, evenly spread over it. Raises InputError if `limit` is below 1."""
    if limit < 1:
        raise InputError(f"--limit is {limit}, wanted at least 1", "leave it out to pack the whole dataset")
    splits = {}
    for split, names in source.splits.items():
        count = min(limit, len(names))
        splits[split] = [names[index * len(names) // count] for index in range(count)]
    kept = {name for names in splits.values() for name in names}
    groups = None if source.groups is None else {name: group for name, group in source.groups.items() if name in kept}
    return replace(source, splits=splits, groups=groups)


def _without(source: Source, left_out: Collection[str]) -> Source:
    """The source without some samples."""
    if not left_out:
        return source
    splits = {split: [name for name in names if name not in left_out] for split, names in source.splits.items()}
    return replace(source, splits=splits)


def _names(source: Source) -> list[str]:
    """The samples of all splits, each once, sorted."""
    return sorted({name for names in source.splits.values() for name in names})


def staging_folder(data_root: Path, name: str) -> Path:
    """Where a dataset is written before it is whole."""
    return data_root / f".{name}.writing"


def plan_shards(name: str, sizes: dict[str, tuple[int, int]], pixel_bytes: int = 4) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each shard's file name and samples: sorted names in equal runs of about half a GiB of pixels, at least some for every core.

    sizes: (H, W) of each sample.  pixel_bytes: how many bytes a pixel of image and label counts.
    """
    names = sorted(sizes)
    total = sum(height * width * pixel_bytes for height, width in sizes.values())
    count = max(math.ceil(total / SHARD_BYTES), min(MIN_SHARDS, math.ceil(len(names) / MIN_SHARD_SAMPLES)))
    cuts = [index * len(names) // count for index in range(count + 1)]
    return tuple((f"{name}-{index:05d}-of-{count:05d}.h5", tuple(names[cuts[index] : cuts[index + 1]])) for index in range(count))


def _pixel_bytes(source: Source) -> int:
    """How many bytes a pixel counts in the plan of shards. uint8 bands count as RGB, because they always did, and a dataset that
    is prepared again keeps its shards."""
    return 4 if source.pixels is None or source.pixels.pixel_type == "uint8" else 2 * len(source.pixels.bands) + 1


def _find_current(source: Source, data_root: Path, codec: Codec, limit: int | None) -> PreparedDataset | None:
    """The prepared dataset, if its files are as they were written, by this rule and codec, from the same bytes."""
    there = find_dataset(data_root, source.name)
    if there is None:
        return None
    shards = [there.folder / shard for shard in there.shards]
    repeated = there.provenance.repeated or {}
    if any(name not in source.unlabelled or source.samples.digest(name) != sha256 for name, sha256 in repeated.items()):
        return None
    source = _without(source, repeated)
    same = (
        there.provenance.rule == source.rule
        and (there.provenance.codec, there.provenance.limit) == (codec, limit)
        and there.splits == source.splits
        and sorted(there.samples) == _names(source)
        and all(shard.is_file() for shard in shards)
        and all(record.source_sha256 == source.samples.digest(name) for name, record in there.samples.items())
        # A person prepares again because of a damaged shard, so a damaged one must not count as finished.
        and all(map(_is_as_written, shards, there.shard_hashes))
    )
    return there if same else None


def _is_as_written(shard: Path, wanted: str) -> bool:
    try:
        return file_hash(shard) == wanted
    except OSError:
        return False


def _check_place(data_root: Path, name: str) -> None:
    """Raise InputError if the dataset's folder holds foreign files, such as the source, or cannot be looked into."""
    final = data_root / name
    ours = re.compile(rf"{re.escape(INDEX_NAME)}|{re.escape(name)}-\d+-of-\d+\.(h5|json)")
    try:
        foreign = [path.name for path in sorted(final.iterdir()) if not ours.fullmatch(path.name)] if final.exists() else []
        if foreign:
            raise InputError(
                f"'{final}' would hold the shards, but it holds other files ('{foreign[0]}')",
                "give another folder with --data-root, or move them",
            )
    except OSError as error:
        raise InputError(
            f"cannot write to the data root '{data_root}': {error.strerror or error}", "give another folder with --data-root"
        ) from error


def _keep_only(staging: Path, conversion: Conversion) -> None:
    """Remove everything from the staging folder but what an earlier attempt at the same shards may have finished."""
    staging.mkdir(exist_ok=True)
    sweep_partial(staging)
    shards = [staging / filename for filename, _ in conversion.shards]
    wanted = {*shards, *map(record_path, shards)}
    for path in staging.iterdir():
        if path not in wanted:
            path.unlink()


def _write_index(conversion: Conversion, shards: list[WrittenShard], limit: int | None) -> None:
    records = {name: record for shard in shards for name, record in shard.records.items()}
    reader = ShardReader([conversion.folder / shard.filename for shard in shards])
    repeated = _repeated(
        conversion.source, records, {name: crc for shard in shards for name, crc in shard.images.items()}, reader
    )
    source = _without(conversion.source, repeated)
    records = {name: record for name, record in records.items() if name not in repeated}
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    notes = list(source.notes)
    if repeated:
        what = "1 unlabelled picture is" if len(repeated) == 1 else f"{len(repeated)} unlabelled pictures are"
        notes.append(f"{what} left out: another sample shows the same picture")
    labels = {name: counts for shard in shards for name, counts in shard.labels.items()}
    splits = counts_of_splits(source.splits, labels)
    certain = judge_labels(splits, source.classes, source.label_advice).certain
    if limit is None and certain:
        raise refusal(certain)
    dataset = PreparedDataset(
        name=source.name,
        folder=conversion.folder,
        classes=source.classes,
        splits=source.splits,
        groups=source.groups,
        fingerprint=fingerprint(source.rule, {name: record.source_sha256 for name, record in records.items()}),
        provenance=Provenance(
            source.origin,
            source.rule,
            source.decoder,
            conversion.codec,
            __version__,
            created,
            limit,
            notes,
            predicted=source.predicted,
            repeated=repeated or None,
        ),
        shards=tuple(shard.filename for shard in shards),
        shard_hashes=tuple(shard.file_hash for shard in shards),
        shard_contents=tuple(map(reader.content_hash, range(len(shards)))),
        samples=records,
        reader=reader,
        label_counts=splits,
        pixels=source.pixels,
    )
    if dataset.pixels is not None:
        dataset = replace(dataset, pixels=_with_statistics(dataset, dataset.pixels))
    write_text(conversion.folder / INDEX_NAME, index_text(to_index(dataset)))
    _flush_names(conversion.folder)


def _repeated(source: Source, records: Records, crcs: Mapping[str, int], reader: ShardReader) -> dict[str, str]:
    """The unlabelled samples whose pixels a labelled sample shows too, or an earlier unlabelled one, with their source_sha256.

    crcs: of each image's pixels; equal ones are compared by SHA-256.  Raises InputError for an unlabelled picture that a split
    for scoring shows: a network would learn from what scores it.
    """
    if not source.unlabelled:
        return {}

    def read(name: str) -> np.ndarray:
        record = records[name]
        return reader.read(record.shard, "images", name, (0, 0, record.height, record.width))

    pictures = Pictures(source.splits, read, grouped=source.groups is not None)
    for name, crc in crcs.items():
        pictures.add(name, (records[name].height, records[name].width), crc)
    if problems := [found for found in pictures.findings() if found.sample in source.unlabelled]:
        hint = "take it out, so that no network learns from what scores it"
        raise refusal([replace(found, problem=f"the picture '{found.sample}' {found.problem}", hint=hint) for found in problems])
    return {name: records[name].source_sha256 for name in pictures.repeated(source.unlabelled)}


def _with_statistics(dataset: PreparedDataset, scaling: BandScaling) -> BandScaling:
    """The scaling with mean and deviation of each band over the training pictures, or over all where there is no such split."""
    total, squares, pixels = np.zeros(dataset.bands), np.zeros(dataset.bands), 0
    largest = LARGEST[dataset.pixel_type]
    levels = np.arange(largest + 1)
    for name in dataset.splits.get("train") or sorted(dataset.samples):
        image = dataset.image(name).reshape(-1, dataset.bands)
        counts = np.stack([np.bincount(band, minlength=largest + 1) for band in image.T])
        total += counts @ levels
        squares += counts @ levels**2
        pixels += len(image)
    dataset.reader.close()
    mean = total / pixels
    deviation = np.sqrt(np.maximum(squares / pixels - mean**2, 0))
    # A band of one value would be divided by zero.
    std = np.where(deviation < LEAST_DEVIATION[dataset.pixel_type], largest, deviation) / largest
    return scaling.model_copy(update={"mean": tuple((mean / largest).tolist()), "std": tuple(std.tolist())})


def _put_in_place(staging: Path, data_root: Path, name: str) -> PreparedDataset:
    final, old = data_root / name, data_root / f".{name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    staging.rename(final)
    _flush_names(data_root)
    # The renamed folder is the finished dataset; its records were only for resuming.
    for record in map(record_path, final.glob(f"{name}-*.h5")):
        record.unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)
    return open_dataset(data_root, name)


def _flush_names(folder: Path) -> None:
    """Flush the names in a folder to the disk, if the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def convert(conversion: Conversion, workers: int, progress: Progress) -> list[WrittenShard]:
    """Write every shard that is not whole yet, in this process or in several. Returns all of them, in order."""
    workers = min(workers, len(conversion.shards))
    if workers > 1:
        return in_processes(_make, conversion, len(conversion.shards), workers, lambda done: progress(done, conversion.total))
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, conversion.total)

    return [_make(conversion, index, tick) for index in range(len(conversion.shards))]


def _make(conversion: Conversion, index: int, tick: Callable[[], None]) -> WrittenShard:
    """The shard from an earlier attempt if it is whole and right, else a new one."""
    return _take_over(conversion, index, tick) or _write(conversion, index, tick)


class _ShardRecord(BaseModel):
    """The file beside a shard that is not in its place yet. key: hash over all that decides what the shard holds."""

    key: str
    file_hash: str
    records: dict[str, SampleRecord]
    labels: dict[str, LabelCounts]
    images: dict[str, int]


def record_path(shard: Path) -> Path:
    """The record of a shard, which lies beside it until the dataset is whole."""
    return shard.with_suffix(".json")


def _key(conversion: Conversion, index: int) -> str:
    """Hash over everything that decides what a shard holds, except for the bytes of the source."""
    source = conversion.source
    parts = [SHARD_FORMAT, source.rule, source.decoder, conversion.codec, *conversion.shards[index]]
    return content_key(parts)


def _take_over(conversion: Conversion, index: int, tick: Callable[[], None]) -> WrittenShard | None:
    filename, names = conversion.shards[index]
    path = conversion.folder / filename
    if not record_path(path).is_file():
        return None
    try:
        found = read_record(record_path(path), _ShardRecord)
        current = found.key == _key(conversion, index) and found.file_hash == file_hash(path)
    except (InputError, OSError):
        return None
    if not current or any(found.records[name].source_sha256 != conversion.source.samples.digest(name) for name in names):
        return None
    for _ in names:
        tick()
    return WrittenShard(filename, found.file_hash, found.records, found.labels, found.images)


def _write(conversion: Conversion, index: int, tick: Callable[[], None]) -> WrittenShard:
    filename, names = conversion.shards[index]
    records: Records = {}
    labels: dict[str, LabelCounts] = {}
    images: dict[str, int] = {}
    classes = conversion.source.classes.num_classes

    def samples() -> Iterator[RawSample]:
        for name in names:
            sample = conversion.source.samples.read(name)
            height, width = sample.image.shape[:2]
            votes = sample.votes
            pixels = pixels_sha256(sample.image, sample.label, None if votes is None else votes.numbers)
            images[name] = zlib.crc32(np.ascontiguousarray(sample.image).data)
            shown: dict[str, int] = {}
            if sample.label is not None:
                labels[name] = LabelCounts.of(sample.label, classes, sample.unknown_values, sample.remarks)
                shown = {str(train_id): count for train_id, count in enumerate(labels[name].classes) if count}
            records[name] = SampleRecord(
                index,
                height,
                width,
                sample.source_bytes,
                sample.source_sha256,
                pixels,
                sample.unknown_pixels,
                shown,
                labelled=sample.label is not None,
                raters=None if votes is None else votes.record,
            )
            yield sample
            tick()

    path = conversion.folder / filename
    record_path(path).unlink(missing_ok=True)
    write_shard(path, samples(), conversion.codec)
    _read_back(path, records)
    written = WrittenShard(filename, file_hash(path), records, labels, images)
    write_text(record_path(path), json.dumps({"key": _key(conversion, index), **asdict(written)}))
    return written


def _read_back(path: Path, records: Records) -> None:
    """Compare the shard with what was written. Raises SegctlError if a sample has other pixels."""
    reader = ShardReader([path])
    for name, record in records.items():
        whole = (0, 0, record.height, record.width)
        label = reader.read(0, "labels", name, whole) if record.labelled else None
        votes = None if record.raters is None else reader.read(0, "votes", name, whole)
        if pixels_sha256(reader.read(0, "images", name, whole), label, votes) != record.pixels_sha256:
            raise SegctlError(f"sample '{name}' reads back from '{path}' with other pixels than were written", "check the disk")
    reader.close()
