"""A training sample from shards against decoding its PNGs each time, one core, pairs alternated in one run.

    python benchmarks/loader.py --data-root DATA --source CAMVID_FOLDER [--crop 240 320] [--samples 300]

Both make the same view of the same sample: scale 0.5 to 2, random crop, flip.
  shards   the tiles of the region, resize of the region, uint8 out           (segctl)
  pngs     decode image and label, float32, resize the whole, crop, normalise  (the common pipeline)
  decode   decoding the two PNGs, and nothing else
Prints medians, ratios, samples a second, and sizes on the disk. CPU time, so that other work on the machine counts less;
--wall for the wall clock.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
from PIL import Image

from segctl.data.packed import PackedDataset, open_dataset
from segctl.data.transforms import View, draw_view, take
from segctl.schema.data import DataSpec

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)


def decode(image: Path, label: Path) -> tuple[np.ndarray, np.ndarray]:
    """Image with OpenCV, as people do; label with PIL."""
    return cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB), np.array(Image.open(label))


def common_pipeline(image: Path, label: Path, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Decode, float32, resize whole, pad, crop, flip, normalise."""
    pixels, ids = decode(image, label)
    size = (view.columns.scaled, view.rows.scaled)
    pixels = cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
    down, across = max(view.crop[0] - size[1], 0), max(view.crop[1] - size[0], 0)
    sides = (down // 2, down - down // 2, across // 2, across - across // 2)
    pixels = cv2.copyMakeBorder(pixels, *sides, cv2.BORDER_CONSTANT, value=MEAN.tolist())
    ids = cv2.copyMakeBorder(ids, *sides, cv2.BORDER_CONSTANT, value=255)
    top, left = view.rows.start, view.columns.start
    pixels = pixels[top : top + view.crop[0], left : left + view.crop[1]]
    ids = ids[top : top + view.crop[0], left : left + view.crop[1]]
    if view.flip:
        pixels, ids = pixels[:, ::-1], ids[:, ::-1]
    return np.ascontiguousarray(((pixels - MEAN) / STD).transpose(2, 0, 1)), np.ascontiguousarray(ids)


def timed(clock: Callable[[], float], work: Callable[[], object]) -> float:
    """Milliseconds."""
    began = clock()
    work()
    return 1000 * (clock() - began)


def measure(
    dataset: PackedDataset, source: Path, spec: DataSpec, samples: int, clock: Callable[[], float]
) -> dict[str, np.ndarray]:
    names = sorted(dataset.names("train"))
    times: dict[str, list[float]] = {"shards": [], "pngs": [], "decode": []}
    for number in range(samples + 20):
        random = np.random.default_rng([1, number])
        name = names[int(random.integers(len(names)))]
        view = draw_view(dataset.size(name), spec, random)
        image, label = (source / part / f"{name}.png" for part in ("train", "trainannot"))
        rivals = {
            "shards": lambda name=name, view=view: take(dataset, name, view),
            "pngs": lambda image=image, label=label, view=view: common_pipeline(image, label, view),
            "decode": lambda image=image, label=label: decode(image, label),
        }
        order = list(rivals) if number % 2 else list(rivals)[::-1]
        for rival in order:
            times[rival].append(timed(clock, rivals[rival]))
    return {rival: np.array(values[20:]) for rival, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-root", type=Path, required=True, help="folder with the prepared camvid")
    parser.add_argument("--source", type=Path, required=True, help="the CamVid folder it was prepared from")
    parser.add_argument("--crop", type=int, nargs=2, default=(240, 320), metavar=("H", "W"))
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--wall", action="store_true", help="measure the wall clock instead of CPU time")
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    dataset = open_dataset(arguments.data_root, "camvid")
    spec = DataSpec(dataset="camvid", crop=tuple(arguments.crop))
    clock = time.perf_counter if arguments.wall else time.process_time
    times = measure(dataset, arguments.source, spec, arguments.samples, clock)
    medians = {rival: float(np.median(values)) for rival, values in times.items()}
    print(f"camvid {dataset.provenance.codec}, crop {spec.crop[0]}x{spec.crop[1]}, {arguments.samples} samples, one core")
    for rival, median in medians.items():
        low, high = np.percentile(times[rival], [10, 90])
        print(f"  {rival:7} {median:7.2f} ms (10-90 %: {low:.2f}-{high:.2f})   {1000 / times[rival].mean():7.1f} samples/s")
    for rival in ("pngs", "decode"):
        pairs = np.median(times[rival] / times["shards"])
        print(f"  {rival} / shards: {medians[rival] / medians['shards']:.2f} (medians), {pairs:.2f} (median of pairs)")
    shards, sources = dataset.shard_bytes(), dataset.source_bytes()
    print(f"  on disk: shards {shards / 1e6:.1f} MB, source {sources / 1e6:.1f} MB, ratio {shards / sources:.2f}")


if __name__ == "__main__":
    main()
