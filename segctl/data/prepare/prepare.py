"""Sources to shards, in parallel, whole or not at all.

Everything is written into `<data-root>/.<name>.writing`, and that folder is renamed once its dataset.json is there: a dataset's
folder is always complete, and an older dataset stays in place until the new one is. What stops on the way leaves its whole shards
there, and the next attempt continues with them (convert.py). One process at a time, by `<data-root>/.<name>.lock`.
Which sample goes into which shard depends on the samples alone, never on the number of processes.
"""

import math
import os
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path

from segctl import __version__
from segctl.data.datasets import Source, open_source
from segctl.data.files.lock import locked
from segctl.data.findings import refuse
from segctl.data.prepare.convert import Conversion, Progress, WrittenShard, convert, record_path
from segctl.data.prepare.limited import limited
from segctl.data.shards.dataset import INDEX_NAME, PackedDataset, Provenance, fingerprint, index_text, open_dataset, to_index
from segctl.data.shards.reader import ShardReader
from segctl.data.shards.tiles import file_hash
from segctl.data.shards.writer import Codec
from segctl.errors import InputError
from segctl.files import sweep_partial, write_whole
from segctl.runtime.cores import core_count

SHARD_BYTES = 2**29
MIN_SHARDS, MIN_SHARD_SAMPLES = 4, 32


def prepare(
    name: str,
    data_root: Path,
    source: Path | None,
    *,
    codec: Codec = "lz4",
    workers: int | None = None,
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
) -> PackedDataset:
    """Open the dataset's source (`source`: one folder or archive, None where none is needed) and pack it."""
    opened = open_source(name, [] if source is None else [source])
    return prepare_source(opened, data_root, codec=codec, workers=workers, limit=limit, progress=progress)


def prepare_source(
    opened: Source,
    data_root: Path,
    *,
    codec: Codec = "lz4",
    workers: int | None = None,
    limit: int | None = None,
    progress: Progress = lambda done, total: None,
) -> PackedDataset:
    """Convert a source into `<data_root>/<name>`, or return the dataset that is there when it was made from the same bytes.

    `workers` is the number of processes, None for one per core; `limit` packs a trial of at most so many samples of each split.
    Raises InputError before anything is written where the source, the codec or the data root do not fit.
    """
    processes = core_count() if workers is None else workers
    refuse(opened.problems)
    source: Source = opened if limit is None else limited(opened, limit)
    limit = None if source.splits == opened.splits else limit
    if (finished := _find_current(source, data_root, codec, limit)) is not None:
        return finished
    sizes = {sample: source.size(sample) for sample in _all_samples(source)}
    _check_place(data_root, source.name)
    with locked(data_root / f".{source.name}.lock", f"preparing '{source.name}' in '{data_root}'"):
        return _convert(source, data_root, codec, processes, sizes, limit, progress)


def _convert(
    source: Source,
    data_root: Path,
    codec: Codec,
    processes: int,
    sizes: dict[str, tuple[int, int]],
    limit: int | None,
    progress: Progress,
) -> PackedDataset:
    staging = staging_folder(data_root, source.name)
    conversion = Conversion(source, staging, codec, plan_shards(source.name, sizes))
    _keep_only(staging, conversion)
    try:
        shards = convert(conversion, processes, progress)
        _write_index(_describe(conversion, shards, limit))
        return _put_in_place(staging, data_root, source.name)
    finally:
        _drop_if_empty(staging)


def created_at(data_root: Path, name: str) -> str | None:
    """When the prepared dataset that is there was made; None where there is none."""
    try:
        return open_dataset(data_root, name).provenance.created
    except InputError:
        return None


def staging_folder(data_root: Path, name: str) -> Path:
    """Where a dataset is written before it is whole."""
    return data_root / f".{name}.writing"


def plan_shards(name: str, sizes: dict[str, tuple[int, int]]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each shard's file name and samples: sorted names in equal runs, about half a GiB of pixels each, some for every core."""
    names = sorted(sizes)
    pixels = sum(height * width * 4 for height, width in sizes.values())
    count = max(math.ceil(pixels / SHARD_BYTES), min(MIN_SHARDS, math.ceil(len(names) / MIN_SHARD_SAMPLES)))
    cuts = [index * len(names) // count for index in range(count + 1)]
    return tuple((f"{name}-{index:05d}-of-{count:05d}.h5", tuple(names[cuts[index] : cuts[index + 1]])) for index in range(count))


def _all_samples(source: Source) -> list[str]:
    return sorted({name for names in source.splits.values() for name in names})


def _find_current(source: Source, data_root: Path, codec: Codec, limit: int | None) -> PackedDataset | None:
    """The dataset that is there, if its files are as they were written, by this rule and codec, from these very bytes."""
    try:
        there = open_dataset(data_root, source.name)
    except InputError:
        return None
    same = (
        there.provenance.rule == source.rule
        and (there.provenance.codec, there.provenance.limit) == (codec, limit)
        and there.splits == source.splits
        and sorted(there.samples) == _all_samples(source)
        and all((there.folder / shard).is_file() for shard in there.shards)
        and all(record.source_sha256 == source.digest(name) for name, record in there.samples.items())
        # Preparing again is what one is told to do about a damaged shard, so it must not be taken for a sound one.
        and all(map(_is_as_written, (there.folder / shard for shard in there.shards), there.shard_hashes))
    )
    return there if same else None


def _is_as_written(shard: Path, wanted: str) -> bool:
    try:
        return file_hash(shard) == wanted
    except OSError:
        return False


def _check_place(data_root: Path, name: str) -> None:
    """Refuse a dataset folder that holds anything but a dataset, such as the source itself, and a data root that is none."""
    final = data_root / name
    ours = re.compile(rf"{re.escape(INDEX_NAME)}|{re.escape(name)}-\d+-of-\d+\.(h5|json)")
    try:
        foreign = [path.name for path in sorted(final.iterdir()) if not ours.fullmatch(path.name)] if final.exists() else []
        if foreign:
            raise InputError(
                f"'{final}' would hold the shards, but it holds other files ('{foreign[0]}')",
                "give another folder with --data-root, or move them",
            )
        data_root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write to the data root '{data_root}': {error.strerror or error}", "give another folder with --data-root"
        ) from error


def _keep_only(staging: Path, conversion: Conversion) -> None:
    """Leave in the staging folder what an earlier attempt at the same shards may have finished, and nothing else."""
    staging.mkdir(exist_ok=True)
    sweep_partial(staging)
    shards = [staging / filename for filename, _ in conversion.shards]
    wanted = {*shards, *map(record_path, shards)}
    for path in staging.iterdir():
        if path not in wanted:
            path.unlink()


def _drop_if_empty(staging: Path) -> None:
    """A folder without a whole shard is of no use to the next attempt."""
    if staging.is_dir() and not any(staging.glob("*.h5")):
        shutil.rmtree(staging, ignore_errors=True)


def _describe(conversion: Conversion, shards: list[WrittenShard], limit: int | None) -> PackedDataset:
    source = conversion.source
    created = datetime.now(UTC).isoformat(timespec="milliseconds")
    notes = list(source.notes)
    provenance = Provenance(source.origin, source.rule, source.decoder, conversion.codec, __version__, created, limit, notes)
    records = {name: record for shard in shards for name, record in shard.records.items()}
    return PackedDataset(
        name=source.name,
        folder=conversion.folder,
        classes=source.classes,
        splits=source.splits,
        groups=source.groups,
        fingerprint=fingerprint(source.rule, {name: record.source_sha256 for name, record in records.items()}),
        provenance=provenance,
        shards=tuple(shard.filename for shard in shards),
        shard_hashes=tuple(shard.file_hash for shard in shards),
        samples=records,
        reader=ShardReader([conversion.folder / shard.filename for shard in shards]),
    )


def _write_index(dataset: PackedDataset) -> None:
    text = index_text(to_index(dataset))

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    write_whole(dataset.folder / INDEX_NAME, write)
    _flush_names(dataset.folder)


def _put_in_place(staging: Path, data_root: Path, name: str) -> PackedDataset:
    final, old = data_root / name, data_root / f".{name}.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    staging.rename(final)
    _flush_names(data_root)
    for record in map(record_path, final.glob(f"{name}-*.h5")):
        record.unlink(missing_ok=True)
    shutil.rmtree(old, ignore_errors=True)
    return open_dataset(data_root, name)


def _flush_names(folder: Path) -> None:
    """Have the disk keep the names in a folder, where the system can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
