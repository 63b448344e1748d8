"""Latency and peak memory of what segments images.

The subjects take turns within a round, so that whatever else the machine does hits all of them; ratios are medians over rounds.
Each peak of memory is that of a process of its own that loads one subject and segments two images.
"""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

import numpy as np

from segctl.bench.exported_file import Conditions, Image, Segment, segment_by_file
from segctl.errors import InputError, SegctlError, first_line
from segctl.runtime.cores import core_count

if TYPE_CHECKING:
    from segctl.bench.subjects import Subject
    from segctl.files import Progress

WARM_UP_RUNS = 3
"""Runs before the first round: compiling, allocating and choosing kernels happen there."""
ROUNDS = (7, 100)
"""Fewest and most rounds."""
SECONDS = 10.0
"""How long the slowest subject is measured, unless the fewest rounds take longer."""

PEAKS_AT_ONCE = 2
"""Largest number of processes whose peak memory is measured at the same time: more might not fit beside each other."""


@dataclass(frozen=True)
class BenchRow:
    """What was found of a subject; times in ms of one image, memory in MB. failure: why it could not be measured, or empty."""

    subject: "Subject"
    median_ms: float | None = None
    p90_ms: float | None = None
    ratio: float | None = None
    """Its time divided by that of the first subject, the median over rounds."""
    peak_mb: float | None = None
    rounds: int = 0
    failure: str = ""

    @property
    def images_per_s(self) -> float | None:
        return None if not self.median_ms else 1000 / self.median_ms


def measure_in_turns(subjects: Sequence["Subject"], conditions: Conditions, progress: "Progress") -> list[BenchRow]:
    """Measure all subjects on one image of random pixels. A subject that fails has a row that says why.

    Raises InputError if all of them fail.
    """
    image: Image = np.random.default_rng(0).integers(0, 256, (1, *conditions.size, 3), dtype=np.uint8)
    running, failures = {}, {}
    steps = 2 * len(subjects) + 1
    for index, subject in enumerate(subjects):
        progress(index, steps)
        try:
            running[index] = _warmed(subject.segment(conditions), image)
        except (SegctlError, RuntimeError, MemoryError) as error:
            failures[index] = error.message if isinstance(error, SegctlError) else first_line(error)
    if not running:
        raise InputError(f"nothing could be measured: {failures[0]}", "see `segctl bench --help`")
    # The process of a compiled network would hold the compiler.
    alone = {index: subject for index, subject in enumerate(subjects) if index in running and subject.form != "torch compiled"}
    peaks = peaks_of(alone, conditions, lambda done: progress(len(subjects) + done, steps))
    times = take_turns(running, image)
    progress(steps, steps)
    first = min(running)
    rows = []
    for index, subject in enumerate(subjects):
        if index in failures:
            rows.append(BenchRow(subject, failure=failures[index]))
            continue
        mine = times[index]
        ratio = median(one / other for one, other in zip(mine, times[first], strict=True))
        rows.append(BenchRow(subject, median(mine), quantiles(mine, n=10)[-1], ratio, peaks.get(index), len(mine)))
    return rows


def take_turns(
    running: dict[int, Callable[[Image], object]], image: Image, clock: Callable[[], float] = time.perf_counter
) -> dict[int, list[float]]:
    """Milliseconds of every subject in every round, in the same order of subjects."""
    times: dict[int, list[float]] = {index: [] for index in running}
    fewest, most = ROUNDS
    for done in range(most):
        if done >= fewest and max(map(sum, times.values())) >= 1000 * SECONDS:
            break
        for index, segment in running.items():
            start = clock()
            segment(image)
            times[index].append(1000 * (clock() - start))
    return times


def peaks_of(
    subjects: Mapping[int, "Subject"], conditions: Conditions, progress: Callable[[int], object] = lambda done: None
) -> dict[int, float | None]:
    """What `peak_of` says of each. On a CPU a few at once: nothing is timed, and most of it is loading libraries."""
    at_once = min(PEAKS_AT_ONCE, core_count()) if conditions.device == "cpu" else 1
    with ThreadPoolExecutor(at_once) as threads:
        running = {index: threads.submit(peak_of, subject, conditions) for index, subject in subjects.items()}
        found: dict[int, float | None] = {}
        for index, peak in running.items():
            found[index] = peak.result()
            progress(len(found))
    return found


def peak_of(subject: "Subject", conditions: Conditions) -> float | None:
    """Peak memory in MB: of the GPU for torch on CUDA, else of the process; None where it is not known."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        try:
            if subject.is_exported and subject.file is not None:
                return alone.submit(_peak_of_file, subject.file, conditions).result()
            return alone.submit(_peak_of_torch, subject, conditions).result()
        except BrokenProcessPool:  # the system ended it, because memory ran out
            return None


def _peak_of_torch(subject: "Subject", conditions: Conditions) -> float | None:
    _segment_twice(subject.segment(conditions), conditions)
    if conditions.device == "cpu":
        return _resident_peak()
    import torch

    return torch.cuda.max_memory_allocated() / 1e6 if conditions.device.startswith("cuda") else None


def _peak_of_file(file: Path, conditions: Conditions) -> float | None:
    _segment_twice(segment_by_file(file, conditions), conditions)
    return _resident_peak() if conditions.device == "cpu" else None  # onnxruntime does not tell of a GPU


def _segment_twice(segment: Segment, conditions: Conditions) -> None:
    image: Image = np.zeros((1, *conditions.size, 3), np.uint8)
    segment(image)
    segment(image)


def _resident_peak() -> float | None:
    if sys.platform == "linux":  # getrusage would give the peak of the process that started this one, if it was higher
        with open("/proc/self/status", encoding="ascii") as status:  # noqa: PTH123
            return next((float(line.split()[1]) * 1024 / 1e6 for line in status if line.startswith("VmHWM:")), None)
    import torch

    from segctl.runtime.memory import peak_memory_mb

    return peak_memory_mb(torch.device("cpu")) or None


def _warmed(segment: Segment, image: Image) -> Segment:
    for _ in range(WARM_UP_RUNS):
        segment(image)
    return segment
