"""Whether an exported file predicts what its run predicts: the same images go through both."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from segctl.data.batches.views import padding_of
from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import InputError
from segctl.evaluate.predictor import predict_classes
from segctl.files import Progress
from segctl.ignored import IGNORED
from segctl.metrics.counts import pairs
from segctl.metrics.scores import score
from segctl.metrics.tally import ImageCounts, Tally
from segctl.models import Segmenter
from segctl.programs import Program
from segctl.runtime.device import choose_compute
from segctl.schema.evaluate import EvaluateSpec


@dataclass(frozen=True)
class Tolerance:
    """How much a file may differ: percent of pixels with another class (0 to 100), and points of mIoU_D, either way."""

    pixels: float = 0.1
    miou_d: float = 0.1


@dataclass(frozen=True)
class Parity:
    """How many pixels have another class, of `of_pixels`; mIoU_D of the run and of the file in percent, None if undefined."""

    images: int
    pixels: int
    of_pixels: int
    run: float | None
    file: float | None

    @property
    def percent(self) -> float:
        """The part of all pixels that have another class, in percent."""
        return 100 * self.pixels / max(1, self.of_pixels)

    @property
    def change(self) -> float:
        """mIoU_D of the file minus that of the run, in points."""
        return 0.0 if self.run is None or self.file is None else self.file - self.run

    def within(self, tolerance: Tolerance) -> bool:
        """Whether the file may pass for the run."""
        return self.percent <= tolerance.pixels and abs(self.change) <= tolerance.miou_d

    def in_words(self) -> str:
        """`0.012 % of the pixels of 101 images differ; mIoU_D 61.20 against 61.21 of the run`."""
        scores = (
            "mIoU_D is undefined"
            if self.run is None or self.file is None
            else (f"mIoU_D {self.file:.2f} against {self.run:.2f} of the run")
        )
        return f"{self.percent:.3g} % of the pixels of {self.images} images differ; {scores}"


def spread_evenly(names: Sequence[str], count: int | None) -> list[str]:
    """`count` of the names, evenly from first to last; all for None, or if there are no more."""
    if count is None or count >= len(names):
        return list(names)
    return [names[index * len(names) // count] for index in range(count)]


def compare_with_run(
    network: Segmenter, program: Program, dataset: PreparedDataset, names: Sequence[str], progress: Progress | None = None
) -> Parity:
    """Run the network (float32, on the CPU) and the file on the named images, each in one piece at its own size.

    A file of a fixed size sees the top left part of each image of that size; smaller images are padded with the mean colour.
    Raises InputError without an image.
    """
    if not names:
        raise InputError("there is no image to compare the exported file on", "give another split, or --parity 0")
    compute, whole = choose_compute("cpu", "fp32"), EvaluateSpec()
    tallies = [Tally(dataset.classes.names, dataset.groups) for _ in range(2)]
    differing = total = 0
    for done, name in enumerate(names, start=1):
        image, label = _fitted(dataset.image(name), dataset.label(name), program.facts.size, padding_of(dataset))
        wanted = predict_classes(network, torch.from_numpy(image)[None], whole, compute)[0].numpy()
        found = program.labels(image[None])[0]
        differing += int((wanted != found).sum())
        total += wanted.size
        for tally, ids in zip(tallies, (wanted, found), strict=True):
            tally.add(ImageCounts(name, pairs(ids[None], label[None], len(dataset.classes.names))[0]))
        if progress is not None:
            progress(done, len(names))
    run, file = (score(tally.counts().table, binary=dataset.classes.binary)["mIoU_D"] for tally in tallies)
    return Parity(len(names), differing, total, run, file)


def _fitted(
    image: np.ndarray, label: np.ndarray, size: list[int] | None, padding: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Image (H, W, bands) and label uint8 (H, W), cut or padded below and on the right to `size`."""
    if size is None:
        return np.ascontiguousarray(image), label
    canvas = np.empty((*size, len(padding)), image.dtype)
    canvas[:] = padding
    truth = np.full(size, IGNORED, np.uint8)
    part = tuple(slice(0, min(side, wanted)) for side, wanted in zip(image.shape[:2], size, strict=True))
    canvas[part], truth[part] = image[part], label[part]
    return canvas, truth
