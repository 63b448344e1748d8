"""Counting, resampling and scoring of files, each beside what it is compared with, in one run.

    python benchmarks/metrics.py [--pairs 500] [--workers 1] [--rounds 7] [--save [NOTE]]

  count    one 1024×2048 image, 19 classes, one core: segctl, torchmetrics' multiclass confusion matrix (where it is installed),
           NumPy's bincount over 64-bit keys, plain one-hot masks
  interval 10,000 resamples of 500 images and 19 classes, every score
  files    `eval --pred --gt` of PNG pairs of 1024×2048 against decoding the same PNGs with the same threads, and nothing else;
           resident memory after the first tenth and at the end
Rivals are alternated; times are medians over the rounds, ratios medians over the rounds' pairs. --save keeps the result
(benchmarks/record.py).
"""

import argparse
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import record
import torch
from PIL import Image

from segctl.evaluate.png_classes import given_classes
from segctl.evaluate.png_folders import FilesRequest, score_files
from segctl.evaluate.png_pairs import read_ids
from segctl.metrics.counts import count
from segctl.metrics.intervals import Bootstrap, intervals
from segctl.metrics.table import CountTable

CLASSES, HEIGHT, WIDTH = 19, 1024, 2048
Maps = tuple[np.ndarray, np.ndarray]


def street(seed: int) -> Maps:
    """Prediction and label that look like a street: wavy bands and blobs, a tenth ignored, most pixels right."""
    random = np.random.default_rng(seed)
    field = cv2.resize(random.random((9, 17), np.float32), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    label = (np.linspace(0, 9, HEIGHT)[:, None] + 9 * field).clip(0, CLASSES - 1).astype(np.uint8)
    prediction = np.roll(label, (3, 5), (0, 1))
    label[-100:] = 255
    return prediction, label


def segctl(maps: Maps) -> None:
    count(maps[0][None], maps[1][None], CLASSES)


def bincount(maps: Maps) -> None:
    prediction, label = maps
    valid = label != 255
    key = label[valid].astype(np.int64) * CLASSES + prediction[valid]
    np.bincount(key, minlength=CLASSES**2).reshape(CLASSES, CLASSES)


def one_hot(maps: Maps) -> None:
    """Masks of every class, as metric code is often written."""
    prediction, label = (torch.from_numpy(ids).long() for ids in maps)
    valid = (label != 255)[..., None]
    guess = torch.nn.functional.one_hot(prediction, CLASSES) * valid
    truth = torch.nn.functional.one_hot(label.clamp(max=CLASSES - 1), CLASSES) * valid
    for pair in ((guess, truth), (guess, 1 - truth), (1 - guess, truth)):
        (pair[0] * pair[1]).sum((0, 1))


def count_rivals() -> dict[str, Callable[[Maps], None]]:
    rivals: dict[str, Callable[[Maps], None]] = {"segctl": segctl, "bincount": bincount, "one-hot": one_hot}
    try:
        from torchmetrics.functional.classification import multiclass_confusion_matrix
    except ImportError:
        print("torchmetrics is not installed: left out (pip install torchmetrics)", file=sys.stderr)
        return rivals

    def torchmetrics(maps: Maps) -> None:
        ids = (torch.from_numpy(one) for one in maps)
        multiclass_confusion_matrix(*ids, CLASSES, ignore_index=255, validate_args=False)

    return {**rivals, "torchmetrics": torchmetrics}


def measure_count(rounds: int) -> Iterator[record.Figure]:
    """CPU time of counting one image; one-hot is counted in the first round only, because it takes seconds."""
    rivals, maps = count_rivals(), [street(seed) for seed in range(3)]
    times: dict[str, list[float]] = {name: [] for name in rivals}
    for number in range(rounds):
        for name, rival in rivals.items():
            if name != "one-hot" or number == 0:
                began = time.process_time()
                rival(maps[number % len(maps)])
                times[name].append(1000 * (time.process_time() - began))
    for name, values in times.items():
        ratios = [mine / ours for mine, ours in zip(values, times["segctl"], strict=False)]
        yield record.timed(f"count, {HEIGHT}×{WIDTH}, {CLASSES} classes", name, values, "ms of CPU", ratios, "this / segctl")


def measure_intervals() -> Iterator[record.Figure]:
    random = np.random.default_rng(0)
    counts = random.integers(1, 5000, (500, CLASSES, 3))
    counts[random.random((500, CLASSES)) < 0.4] = 0
    table = CountTable(tuple(f"{index:03d}x" for index in range(500)), tuple(map(str, range(CLASSES))), counts)
    began = time.process_time()
    found = intervals(table, how=Bootstrap(resamples=10_000))
    seconds = time.process_time() - began
    more = {"scores": len(found.scores), "classes": CLASSES}
    yield record.Figure(f"interval, {found.method}", "segctl", seconds, "s of CPU", "one run", more=more)


def make_pairs(root: Path, pairs: int) -> None:
    """PNG pairs; sixteen different ones, linked under as many names as are asked for."""
    for index in range(pairs):
        for side, ids in zip(("pred", "gt"), street(index) if index < 16 else (None, None), strict=True):
            path = root / side / f"{index:05d}.png"
            path.parent.mkdir(exist_ok=True)
            if ids is None:
                path.hardlink_to(root / side / f"{index % 16:05d}.png")
            else:
                Image.fromarray(ids).save(path)


def measure_files(pairs: int, workers: int, rounds: int) -> Iterator[record.Figure]:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_pairs(root, pairs)
        paths = [
            path for pair in zip(*(sorted((root / side).iterdir()) for side in ("pred", "gt")), strict=True) for path in pair
        ]
        request = FilesRequest(root / "pred", root / "gt", given_classes(CLASSES, None, label_ids=False), workers=workers)
        memory: dict[int, float] = {}

        def remember(done: int, total: int) -> None:
            if done in (total // 10, total):
                memory.setdefault(done, resident_mb())

        def decode() -> None:
            with ThreadPoolExecutor(workers) as threads:
                for _ in threads.map(read_and_drop, paths):
                    pass

        rivals = {"decoding": decode, "eval --pred --gt": lambda: score_files(request, remember)}
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in rivals}
        for _ in range(rounds):
            for name, rival in rivals.items():
                began = time.process_time(), time.perf_counter()
                rival()
                times[name].append((time.process_time() - began[0], time.perf_counter() - began[1]))
    case = f"files, {pairs} pairs, {workers} threads"
    for index, clock in enumerate(("s of CPU", "s")):
        taken = {name: np.array([one[index] for one in found]) for name, found in times.items()}
        for name, values in taken.items():
            yield record.timed(case, name, values, clock, values / taken["decoding"], "this / decoding")
    for done, value in memory.items():
        yield record.Figure(f"{case}, after {done}", "resident memory", value, "MB", "one run")


def read_and_drop(path: Path) -> None:
    read_ids(path)


def resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=500)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7, help="of counting; scoring files takes three")
    record.add_options(parser)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    about = "Counting, resampling and scoring of files, each against what it replaces or against decoding alone."
    stopping = f"{arguments.rounds} rounds of counting, 3 of files, 1 of intervals"
    record.run("metrics", about, arguments, measure(arguments), record.Budget(arguments.rounds, 0, [0, 1, 2], stopping))


def measure(arguments: argparse.Namespace) -> Iterator[record.Figure]:
    yield from measure_files(arguments.pairs, arguments.workers, 3)
    yield from measure_count(arguments.rounds)
    yield from measure_intervals()


if __name__ == "__main__":
    main()
