"""Writes the shards of one dataset, in this process or in several."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path

from segctl.data.packed import SampleRecord, pixels_sha256
from segctl.data.shards import Codec, ShardReader, write_shard
from segctl.data.sources import Source
from segctl.data.sources.sample import RawSample
from segctl.errors import SegctlError

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


def convert(conversion: Conversion, workers: int, progress: Progress) -> Records:
    """Write every shard and return what each sample became, in the shards' order."""
    workers = min(workers, len(conversion.shards))
    records = _here(conversion, progress) if workers <= 1 else _in_processes(conversion, workers, progress)
    return {name: record for shard in records for name, record in shard.items()}


def _here(conversion: Conversion, progress: Progress) -> list[Records]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        progress(done, conversion.total)

    return [_write(conversion, index, tick) for index in range(len(conversion.shards))]


def _write(conversion: Conversion, index: int, tick: Callable[[], None]) -> Records:
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
    write_shard(path, samples(), conversion.codec)
    _read_back(path, records)
    return records


def _read_back(path: Path, records: Records) -> None:
    """Compare what lies in the shard with what was meant to."""
    reader = ShardReader([path])
    for name, record in records.items():
        whole = (0, 0, record.height, record.width)
        if pixels_sha256(reader.read(0, "images", name, whole), reader.read(0, "labels", name, whole)) != record.pixels_sha256:
            raise SegctlError(f"sample '{name}' reads back from '{path}' with other pixels than were written", "check the disk")
    reader.close()


def _in_processes(conversion: Conversion, workers: int, progress: Progress) -> list[Records]:
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


def _write_in_worker(index: int) -> Records:
    if _worker is None:
        raise RuntimeError("_write_in_worker runs only where _enter_worker has run")
    return _write(_worker.conversion, index, _worker.tick)
