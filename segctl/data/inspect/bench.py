"""The speed of loading samples: from the shards, and by decoding picture files each time, as the common pipeline does."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import get_args

import cv2
import numpy as np
from PIL import Image

from segctl.data.batches.loader import training_batches
from segctl.data.batches.views import View, Views, draw_view, read_view, view_regions
from segctl.data.files.pictures import decode as decode_picture
from segctl.data.shards.dataset import PreparedDataset
from segctl.data.source import Source
from segctl.errors import InputError
from segctl.ignored import IGNORED
from segctl.pixel_types import require_type
from segctl.schema.data import AugmentStep, DataSpec

MEAN = np.array([123.675, 116.28, 103.53], np.float32)
STD = np.array([58.395, 57.12, 57.375], np.float32)
_SEED = 1
BATCH = 8
WARM_UP = 3
MOST_AUGMENTED = 50
"""How many views an operation of `data.augment` is measured on at most."""


@dataclass(frozen=True)
class Encoded:
    """A sample as files: PNG or JPEG bytes of the image, PNG bytes of the label."""

    image: bytes
    label: bytes


@dataclass(frozen=True)
class Bench:
    """What was measured.

    rates: samples a second by number of workers; 0 is this process alone.  start_s: seconds until the first batch, likewise.
    shards_ms, common_ms, decode_ms: milliseconds a sample.  bytes_read, bytes_encoded: bytes a sample.
    decoded: what the common pipeline decoded, in words.  augment_ms: milliseconds a view of each operation of `data.augment`.
    """

    dataset: str
    codec: str
    crop: tuple[int, int]
    samples: int
    rates: dict[int, float]
    start_s: dict[int, float]
    shards_ms: float
    common_ms: float
    decode_ms: float
    bytes_read: float
    bytes_encoded: float
    decoded: str
    augment_ms: dict[str, float]

    @property
    def times_faster(self) -> float:
        return self.common_ms / self.shards_ms


def bench(
    dataset: PreparedDataset,
    split: str,
    crop: tuple[int, int] | None,
    *,
    samples: int,
    workers: int,
    source: Source | None = None,
) -> Bench:
    """Measure training samples of a split (scale 0.5 to 2, flip, crop): in one process in pairs, and through the loader.

    Decoding is measured on the source's own pictures if a source is given, else on PNG copies in memory.
    Raises InputError if there is no sample to measure.
    """
    names = sorted(dataset.labelled_names(split, "--split"))
    if samples < 1 or not names:
        raise InputError(f"--samples is {samples} and split '{split}' has {len(names)}, wanted at least one of each")
    if dataset.bands != 3:
        raise InputError(
            f"the images of '{dataset.name}' have {dataset.bands} bands, and what they are compared with are RGB pictures",
            "measure a dataset of three bands",
        )
    require_type("uint8", dataset.pixel_type, "`segctl data bench`", f"'{dataset.name}'")
    spec = DataSpec(dataset=dataset.name, crop=crop or _usual_crop(dataset, names[0]))
    kept = {name: encode(dataset, name, source) for name in names[:BATCH]}
    times, read = _in_pairs(dataset, kept, spec, samples)
    rates, starts = {}, {}
    for count in sorted({0, workers}):
        rates[count], starts[count] = _through_the_loader(dataset, split, spec, samples, count)
    shards, common, decode = np.median(times[WARM_UP:], 0)
    return Bench(
        dataset=dataset.name,
        codec=dataset.provenance.codec,
        crop=spec.crop,
        samples=samples,
        rates=rates,
        start_s=starts,
        shards_ms=float(shards),
        common_ms=float(common),
        decode_ms=float(decode),
        bytes_read=read,
        bytes_encoded=float(np.mean([len(files.image) + len(files.label) for files in kept.values()])),
        decoded="PNG copies in memory" if source is None else "the source's pictures, labels as PNG copies, in memory",
        augment_ms=_augment_ms(dataset, split, spec, names, min(samples, MOST_AUGMENTED)),
    )


def _augment_ms(dataset: PreparedDataset, split: str, spec: DataSpec, names: list[str], samples: int) -> dict[str, float]:
    """Milliseconds that each operation adds to a view at its default strength, always applied: the median of `samples` views.

    With and without it are measured in turn on the same sample; one thread. Operations that this dataset lacks are left out.
    """
    before, plain, found = cv2.getNumThreads(), Views.of(dataset, split, spec), {}
    cv2.setNumThreads(0)
    try:
        for kind in get_args(get_args(AugmentStep)[0]):
            step = kind(probability=1.0)
            try:
                views = Views.of(dataset, split, spec.model_copy(update={"augment": (step,)}))
            except InputError:  # an older segctl did not count each sample's classes
                continue
            extra = []
            for number in range(samples):
                name = names[number % min(len(names), BATCH)]
                times = [milliseconds(partial(one.read, name, np.random.default_rng([_SEED, number]))) for one in (plain, views)]
                extra.append(times[1] - times[0])
            found[step.kind] = float(np.median(extra))
    finally:
        cv2.setNumThreads(before)
    return found


def _usual_crop(dataset: PreparedDataset, name: str) -> tuple[int, int]:
    height, width = dataset.size(name)
    return min(512, height), min(512, width)


def encode(dataset: PreparedDataset, name: str, source: Source | None) -> Encoded:
    """A sample's files: the source's own image if it has one, else PNG copies."""
    file = source.samples.read(name).image_file if source is not None else None
    return Encoded(file or _png(dataset.image(name)), _png(dataset.label(name)))


def _png(array: np.ndarray) -> bytes:
    """uint8 (H, W) or (H, W, 3) -> the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def _in_pairs(dataset: PreparedDataset, kept: dict[str, Encoded], spec: DataSpec, samples: int) -> tuple[np.ndarray, float]:
    """Milliseconds of shards, common pipeline and decoding, float (samples + WARM_UP, 3); and bytes read a sample.

    The three are measured in turn on the same sample, so a slow moment of the machine hits all; one thread each.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(0)
    times, read, names = [], 0, list(kept)
    try:
        for number in range(samples + WARM_UP):
            name = names[number % len(names)]
            view = draw_view(dataset.size(name), spec, np.random.default_rng([_SEED, number]))
            files = kept[name]
            shards = milliseconds(partial(read_view, dataset, name, view))
            times.append(
                (shards, milliseconds(partial(common_pipeline, files, view)), milliseconds(partial(decode_encoded, files)))
            )
            read += bytes_read(dataset, name, view)
    finally:
        cv2.setNumThreads(before)
    return np.array(times), read / len(times)


def milliseconds(work: Callable[[], object]) -> float:
    """Wall-clock milliseconds of a call."""
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def bytes_read(dataset: PreparedDataset, name: str, view: View) -> int:
    """Bytes that reading the view reads from the shard."""
    shard = dataset.samples[name].shard
    image, label = view_regions(view)
    return dataset.reader.bytes_read(shard, "images", name, image) + dataset.reader.bytes_read(shard, "labels", name, label)


def _through_the_loader(dataset: PreparedDataset, split: str, spec: DataSpec, samples: int, workers: int) -> tuple[float, float]:
    """Samples a second after the first batch, and seconds until the first batch."""
    batch = min(BATCH, len(dataset.names(split)))
    steps = 1 + max(1, samples // batch)
    began = time.perf_counter()
    batches = training_batches(
        dataset, split, view=spec, batch_size=batch, seed=_SEED, first_step=0, last_step=steps, workers=workers
    )
    next(batches)
    first = time.perf_counter()
    for _ in batches:
        pass
    return (steps - 1) * batch / (time.perf_counter() - first), first - began


def decode_encoded(files: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (H, W, 3) RGB by OpenCV, as most people do it, or InputError if it cannot; label uint8 (H, W) by PIL."""
    image = cv2.imdecode(np.frombuffer(files.image, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError("OpenCV cannot decode a picture of this dataset", "measure against PNG copies: leave --source out")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB), decode_picture(files.label)


def common_pipeline(files: Encoded, view: View) -> tuple[np.ndarray, np.ndarray]:
    """Decode, float32, resize whole, pad, crop, flip, normalise: image float32 (3, h, w), label uint8 (h, w)."""
    pixels, ids = decode_encoded(files)
    size = (view.columns.scaled, view.rows.scaled)
    pixels = cv2.resize(pixels.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    ids = cv2.resize(ids, size, interpolation=cv2.INTER_NEAREST)
    down, across = max(view.crop[0] - size[1], 0), max(view.crop[1] - size[0], 0)
    sides = (down // 2, down - down // 2, across // 2, across - across // 2)
    pixels = cv2.copyMakeBorder(pixels, *sides, cv2.BORDER_CONSTANT, value=MEAN.tolist())
    ids = cv2.copyMakeBorder(ids, *sides, cv2.BORDER_CONSTANT, value=IGNORED)
    top, left = view.rows.start, view.columns.start
    pixels = pixels[top : top + view.crop[0], left : left + view.crop[1]]
    ids = ids[top : top + view.crop[0], left : left + view.crop[1]]
    if view.flip:
        pixels, ids = pixels[:, ::-1], ids[:, ::-1]
    return np.ascontiguousarray(((pixels - MEAN) / STD).transpose(2, 0, 1)), np.ascontiguousarray(ids)
