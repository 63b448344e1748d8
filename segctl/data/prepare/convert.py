"""Writes the shards of one dataset, in this process or in several, and continues where an earlier attempt stopped.

Beside each whole shard lies its record, written after it: the samples, the hash of the file, and a key over everything that
decides what the shard holds. A shard is taken over only where key, file and the bytes of every source still agree.
"""

import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

from segctl.data.datasets import Source
from segctl.data.sample import RawSample
from segctl.data.shards.dataset import SampleRecord, pixels_sha256
from segctl.data.shards.reader import ShardReader
from segctl.data.shards.tiles import file_hash
from segctl.data.shards.writer import FORMAT, Codec, write_shard
from segctl.errors import SegctlError
from segctl.files import content_key, write_whole

Progress = Callable[[int, int], None]
Records = dict[str, SampleRecord]
POLL_S = 0.1


@dataclass(frozen=True)
class Conversion:
    """What is to be written: `shards` pairs each file's name with the names of its samples."""

    source: Source
    folder: Path
    codec: Codec
    shards: tuple[tuple[str, tuple[str, ...]], ...]

    @property
    def total(self) -> int:
        return sum(len(names) for _, names in self.shards)


@dataclass(frozen=True)
class WrittenShard:
    """A whole shard: its file's name, the hash of the file, and what each sample became."""

    filename: str
    file_hash: str
    records: Records


def convert(conversion: Conversion, workers: int, progress: Progress) -> list[WrittenShard]:
    """Write every shard that is not whole yet. Returns all of them, in order."""
    workers = min(workers, len(conversion.shards))
    return _here(conversion, progress) if workers <= 1 else _in_processes(conversion, workers, progress)


def _here(conversion: Conversion, progress: Progress) -> list[WrittenShard]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, conversion.total)

    return [_make(conversion, index, tick) for index in range(len(conversion.shards))]


def _make(conversion: Conversion, index: int, tick: Callable[[], None]) -> WrittenShard:
    """The shard from an earlier attempt where it is whole and right, else a new one."""
    return _take_over(conversion, index, tick) or _write(conversion, index, tick)


def record_path(shard: Path) -> Path:
    """Where the record of a shard lies while the dataset is not whole."""
    return shard.with_suffix(".json")


def _key(conversion: Conversion, index: int) -> str:
    """Hash over everything that decides what a shard holds, but for the bytes of the sources."""
    source = conversion.source
    parts = [FORMAT, source.rule, source.decoder, conversion.codec, *conversion.shards[index]]
    return content_key(parts)


def _take_over(conversion: Conversion, index: int, tick: Callable[[], None]) -> WrittenShard | None:
    filename, names = conversion.shards[index]
    path = conversion.folder / filename
    try:
        found = json.loads(record_path(path).read_text(encoding="utf-8"))
        if found["key"] != _key(conversion, index) or found["file_hash"] != file_hash(path):
            return None
        records = {name: SampleRecord(**record) for name, record in found["records"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if any(records[name].source_sha256 != conversion.source.digest(name) for name in names):
        return None
    for _ in names:
        tick()
    return WrittenShard(filename, found["file_hash"], records)


def _write(conversion: Conversion, index: int, tick: Callable[[], None]) -> WrittenShard:
    filename, names = conversion.shards[index]
    records: Records = {}

    def samples() -> Iterator[RawSample]:
        for name in names:
            sample = conversion.source.read(name)
            height, width = sample.label.shape
            pixels = pixels_sha256(sample.image, sample.label)
            records[name] = SampleRecord(
                index, height, width, sample.source_bytes, sample.source_sha256, pixels, sample.unknown_pixels
            )
            yield sample
            tick()

    path = conversion.folder / filename
    record_path(path).unlink(missing_ok=True)
    write_shard(path, samples(), conversion.codec)
    _read_back(path, records)
    written = WrittenShard(filename, file_hash(path), records)
    _write_record(record_path(path), _key(conversion, index), written)
    return written


def _write_record(path: Path, key: str, written: WrittenShard) -> None:
    text = json.dumps({"key": key, **asdict(written)})

    def write(partial: Path) -> None:
        partial.write_text(text, encoding="utf-8")

    write_whole(path, write)


def _read_back(path: Path, records: Records) -> None:
    """Compare what lies in the shard with what was meant to."""
    reader = ShardReader([path])
    for name, record in records.items():
        whole = (0, 0, record.height, record.width)
        if pixels_sha256(reader.read(0, "images", name, whole), reader.read(0, "labels", name, whole)) != record.pixels_sha256:
            raise SegctlError(f"sample '{name}' reads back from '{path}' with other pixels than were written", "check the disk")
    reader.close()


def _in_processes(conversion: Conversion, workers: int, progress: Progress) -> list[WrittenShard]:
    """Fresh processes (spawn), because this one may hold threads; each writes whole shards and counts samples as it goes."""
    context = multiprocessing.get_context("spawn")
    counter: Synchronized[int] = context.Value("i", 0)
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, context, _enter_worker, (conversion, counter, stop))
    try:
        futures = [pool.submit(_write_in_worker, index) for index in range(len(conversion.shards))]
        waiting = set(futures)
        while waiting:
            finished, waiting = wait(waiting, POLL_S, FIRST_EXCEPTION)
            for future in finished:
                future.result()
            progress(counter.value, conversion.total)
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise SegctlError("a converting process died", "try again with --workers 1; the machine may be out of memory") from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


class _StopError(Exception):
    """The main process has given up; what this one was writing is dropped."""


@dataclass
class _Worker:
    conversion: Conversion
    counter: "Synchronized[int]"
    stop: Event

    def tick(self) -> None:
        if self.stop.is_set():
            raise _StopError
        with self.counter.get_lock():
            self.counter.value += 1


_worker: _Worker | None = None


def _enter_worker(conversion: Conversion, counter: "Synchronized[int]", stop: Event) -> None:
    """Ctrl-C is the main process's to handle; and a worker must not outlive it."""
    global _worker
    _worker = _Worker(conversion, counter, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _write_in_worker(index: int) -> WrittenShard:
    if _worker is None:
        raise RuntimeError("_write_in_worker runs only where _enter_worker has run")
    return _make(_worker.conversion, index, _worker.tick)
