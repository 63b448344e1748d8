"""A training sample from shards against decoding its files each time, one core, alternated in one run.

    python benchmarks/loader.py [--shapes cityscapes voc deepglobe] [--codecs lz4 zstd none source] [--samples 60]
                                [--pictures FOLDER] [--labels FOLDER] [--save [NOTE]]

Three shapes: Cityscapes (2048×1024 PNG, crop 512×1024), VOC (500×375 JPEG, crop 512×512), DeepGlobe (2448×2448 JPEG, crop
512×512). All rivals make the same view of the same sample: scale 0.5 to 2, random crop, flip.
  shards   the tiles of the region, resize of the region, uint8 out            (segctl, by codec)
  common   decode image and label, float32, resize the whole, crop, normalise  (the common pipeline)
  decode   decoding the two files, and nothing else
Pictures are drawn (areas, texture, sensor noise), or taken from --pictures (PNG or JPEG): as they are where they have the
shape's size, else cut and scaled to it. Labels are drawn, or taken from --labels, in the same order.
Prints per shape and codec: the median of each, the median of the pairs' ratios, MB a sample on the disk and read, and what
opening the dataset and its first shard takes. Every view is timed --repeats times and its fastest counts, for all rivals alike.
--save keeps the result (benchmarks/record.py).
"""

import argparse
import io
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

os.environ.setdefault("OMP_NUM_THREADS", "1")

import cv2
import numpy as np
import record
from PIL import Image

from segctl.data.batches.views import draw_view, read_view
from segctl.data.classes import ClassRow, ClassTable
from segctl.data.inspect.bench import Encoded, bytes_read, common_pipeline, decode_encoded
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import open_dataset
from segctl.data.shards.shard import CODECS
from segctl.data.source import RawSample, Source
from segctl.schema.data import DataSpec

CLASSES = ClassTable(tuple(ClassRow(f"class {number}", number, number, (number, 0, 0)) for number in range(19)))
COUNT = 4
"""Pictures of each shape."""


@dataclass(frozen=True)
class Shape:
    size: tuple[int, int]
    crop: tuple[int, int]
    form: str
    quality: int = 0


SHAPES = {
    "cityscapes": Shape((1024, 2048), (512, 1024), "PNG"),
    "voc": Shape((375, 500), (512, 512), "JPEG", 92),
    "deepglobe": Shape((2448, 2448), (512, 512), "JPEG", 98),
}


@dataclass(frozen=True)
class Frames:
    """Reads encoded pictures and labels."""

    files: dict[str, Encoded]

    def size(self, name: str) -> tuple[int, int]:
        image = Image.open(io.BytesIO(self.files[name].image))
        return image.height, image.width

    def digest(self, name: str) -> str:
        return name

    def read(self, name: str) -> RawSample:
        image, label = (np.array(Image.open(io.BytesIO(content))) for content in (self.files[name].image, self.files[name].label))
        length = len(self.files[name].image) + len(self.files[name].label)
        return RawSample(name, image, label, None, name, length, image_file=self.files[name].image)


def draw_picture(size: tuple[int, int], seed: int) -> np.ndarray:
    """Smooth areas with edges, texture in some of them, and sensor noise of a grey level or two."""
    random = np.random.default_rng(seed)
    height, width = size
    areas = draw_label(size, seed)
    colors = random.integers(30, 220, (19, 3))[np.minimum(areas, 18)].astype(np.float32)
    light = cv2.resize(random.normal(0, 18, (12, 20)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    texture = sum(
        cv2.resize(random.normal(0, 7, (height // step, width // step)).astype(np.float32), (width, height))
        for step in (2, 5, 13)
    )
    rough = random.uniform(0, 1.6, 19).astype(np.float32)[np.minimum(areas, 18)]
    noise = random.normal(0, 1.1, (height, width, 3)).astype(np.float32)
    return np.clip(colors + (light + texture * rough)[..., None] + noise, 0, 255).astype(np.uint8)


def draw_label(size: tuple[int, int], seed: int) -> np.ndarray:
    """Areas around 60 points, ids 0 to 18, with an ignored edge at the bottom."""
    random = np.random.default_rng(seed + 1000)
    height, width = size
    small = np.stack(np.mgrid[:height:4, :width:4], -1).reshape(-1, 1, 2)
    points = random.uniform(0, 1, (60, 2)) * size
    nearest = np.concatenate([((part - points) ** 2).sum(-1).argmin(1) for part in np.array_split(small, 64)])
    ids = random.integers(0, 19, 60).astype(np.uint8)[nearest].reshape(-(-height // 4), -(-width // 4))
    label = cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST)
    label[-height // 20 :] = 255
    return label


def fit(picture: np.ndarray, size: tuple[int, int], nearest: bool) -> np.ndarray:
    """As it is where the size fits; shrunk to a smaller size, repeated (mirrored) to a larger one."""
    height, width = size
    if picture.shape[:2] == size:
        return picture
    if picture.shape[0] >= height and picture.shape[1] >= width:
        part = picture[:, : round(picture.shape[0] * width / height)]
        return cv2.resize(part, (width, height), interpolation=cv2.INTER_NEAREST if nearest else cv2.INTER_AREA)
    down, across = max(height - picture.shape[0], 0), max(width - picture.shape[1], 0)
    return np.ascontiguousarray(cv2.copyMakeBorder(picture, 0, down, 0, across, cv2.BORDER_REFLECT_101)[:height, :width])


def make_files(shape: Shape, pictures: list[Path], labels: list[Path]) -> dict[str, Encoded]:
    files = {}
    for number in range(min(COUNT, len(pictures)) if pictures else COUNT):
        image = np.array(Image.open(pictures[number]).convert("RGB")) if pictures else draw_picture(shape.size, number)
        label = np.array(Image.open(labels[number])) if labels else draw_label(shape.size, number)
        image, label = fit(image, shape.size, nearest=False), fit(label, shape.size, nearest=True)
        label = np.where(label < 19, label, 255).astype(np.uint8)
        whole, ids = io.BytesIO(), io.BytesIO()
        Image.fromarray(image).save(whole, shape.form, **({"quality": shape.quality} if shape.quality else {}))
        Image.fromarray(label).save(ids, "PNG")
        files[f"{number:03d}"] = Encoded(whole.getvalue(), ids.getvalue())
    return files


def fastest(work: Callable[[], object], repeats: int, clock: Callable[[], float]) -> float:
    """Milliseconds."""
    times = []
    for _ in range(repeats):
        began = clock()
        work()
        times.append(1000 * (clock() - began))
    return min(times)


def measure(
    title: str, shape: Shape, files: dict[str, Encoded], arguments: argparse.Namespace, clock: Callable[[], float]
) -> Iterator[record.Figure]:
    spec = DataSpec(dataset=title, crop=shape.crop)
    with TemporaryDirectory(prefix="segctl-benchmark-") as folder:
        source = Source(title, "benchmark/1", "the benchmark", "pillow", CLASSES, {"train": list(files)}, Frames(files))
        datasets, opening = {}, {}
        for codec in arguments.codecs:
            prepare_source(source, Path(folder) / codec, codec=codec, workers=0)
            began = time.perf_counter()
            datasets[codec] = open_dataset(Path(folder) / codec, title)
            datasets[codec].label("000", 0, 0, 1, 1)
            opening[codec] = 1000 * (time.perf_counter() - began)
        rivals: dict[str, list[float]] = {rival: [] for rival in (*arguments.codecs, "common", "decode")}
        read = dict.fromkeys(arguments.codecs, 0)
        for number in range(arguments.samples):
            name = list(files)[number % len(files)]
            view = draw_view(shape.size, spec, np.random.default_rng([1, number]))
            works: dict[str, Callable[[], object]] = {
                codec: partial(read_view, datasets[codec], name, view) for codec in arguments.codecs
            }
            works |= {"common": partial(common_pipeline, files[name], view), "decode": partial(decode_encoded, files[name])}
            for rival in works if number % 2 else reversed(works):
                rivals[rival].append(fastest(works[rival], arguments.repeats, clock))
            for codec in arguments.codecs:
                read[codec] += bytes_read(datasets[codec], name, view)
        times = {rival: np.array(values) for rival, values in rivals.items()}
        case = f"{title} {shape.size[1]}×{shape.size[0]}"
        encoded = sum(len(file.image) + len(file.label) for file in files.values()) / len(files)
        more: dict[str, dict[str, float]] = {"common": {}, "decode": {"MB stored": encoded / 1e6}}
        for codec in arguments.codecs:
            more[codec] = {
                "MB stored": datasets[codec].shard_bytes() / len(files) / 1e6,
                "MB read": read[codec] / arguments.samples / 1e6,
                "opening, ms": opening[codec],
                "decode / this": float(np.median(times["decode"] / times[codec])),
            }
        for rival, values in times.items():
            found = {name: float(f"{value:.5g}") for name, value in more[rival].items()}
            yield record.timed(
                case, rival, values, "ms of CPU" if arguments.cpu else "ms", times["common"] / values, "common / this", **found
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=list(SHAPES), default=list(SHAPES))
    parser.add_argument("--codecs", nargs="+", choices=list(CODECS), default=list(CODECS))
    parser.add_argument("--samples", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--pictures", type=Path, help="a folder of PNG or JPEG pictures to use instead of drawn ones")
    parser.add_argument("--labels", type=Path, help="a folder of their labels: 8-bit PNGs of ids 0 to 18, all else ignored")
    parser.add_argument("--cpu", action="store_true", help="CPU time instead of the wall clock")
    record.add_options(parser)
    arguments = parser.parse_args()
    cv2.setNumThreads(0)
    about = "A random training crop from shards, by codec, against the common pipeline and against decoding alone, on one core."
    stopping = f"{arguments.samples} samples of each shape, the fastest of {arguments.repeats} repeats of each"
    record.run("loader", about, arguments, measure_shapes(arguments), record.Budget(arguments.samples, 0, [1], stopping))


def measure_shapes(arguments: argparse.Namespace) -> Iterator[record.Figure]:
    pictures = (
        sorted(path for path in arguments.pictures.iterdir() if path.suffix in (".png", ".jpg")) if arguments.pictures else []
    )
    labels = sorted(arguments.labels.glob("*.png")) if arguments.labels else []
    clock = time.process_time if arguments.cpu else time.perf_counter
    for title in arguments.shapes:
        yield from measure(title, SHAPES[title], make_files(SHAPES[title], pictures, labels), arguments, clock)


if __name__ == "__main__":
    main()
