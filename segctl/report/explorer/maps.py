"""Where the pictures of a report come from.

Images and truth come from the prepared dataset. A run's label maps come from `eval/<split>/predictions`, where `segctl eval
--save-predictions` wrote them, or else from its model.pt. A label map that does not fit the counts of the evaluation, because
the weights or the files changed since, is not shown. Without the dataset, the worst images that `segctl eval` drew are read back.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from segctl.data.files.archives import PlainFile
from segctl.data.files.pictures import read_image, read_label
from segctl.errors import SegctlError, first_line
from segctl.ignored import IGNORED
from segctl.metrics.counts import TP, count
from segctl.report.collect import Evaluation, Rgb, Run

if TYPE_CHECKING:
    from segctl.data.shards.dataset import PreparedDataset

ClassIds = NDArray[np.uint8]
"""The class id of each pixel, uint8 (H, W); 255 is ignored."""

MOST_DIFFERENT = 0.01
"""The share of an image's valid pixels by which a label map may differ from the counts: devices round differently."""


class UnfitMapsError(SegctlError):
    """A run's label maps are missing, or are not those that were scored. The message says why, after the name of the run."""


@dataclass
class NetworkTimes:
    """How long a network took for each image, in milliseconds, and on which device."""

    device: str
    times: list[float] = field(default_factory=list)

    @property
    def median(self) -> float | None:
        """The median without the first image, which pays for warming up; None for fewer than five images."""
        return float(np.median(self.times[1:])) if len(self.times) >= 5 else None


def find_prepared(roots: Sequence[Path], evaluation: Evaluation, dataset: str) -> "PreparedDataset | str":
    """The dataset that an evaluation scored, under one of the roots; or why there is none, in words."""
    from segctl.data.shards.dataset import find_dataset

    split, other = split_scored(evaluation), False
    for root in dict.fromkeys(roots):
        found = find_dataset(root, dataset)
        if found is None:
            continue
        if found.fingerprint == evaluation.fingerprint and split in found.splits:
            return found
        other = True
    if not roots:
        return f"the runs do not say where the dataset '{dataset}' is: give --data-root"
    where = ", ".join(f"'{root}'" for root in dict.fromkeys(roots))
    return (
        f"the dataset '{dataset}' under {where} is not the one that was scored" if other else f"'{dataset}' is not under {where}"
    )


def split_scored(evaluation: Evaluation) -> str:
    """The split of the dataset; the evaluation's name adds the protocol after an @ where it is not the run's own."""
    return str(evaluation.about.get("split") or evaluation.split.split("@")[0])


def label_maps(
    run: Run, evaluation: Evaluation | None, dataset: "PreparedDataset", names: Sequence[str], clock: NetworkTimes | None = None
) -> Iterator[ClassIds]:
    """The run's label map of each named image, in order, at the image's size.

    clock: gets the time of each image where the network runs.  Raises UnfitMapsError where there are none.
    """
    saved = None if evaluation is None else run.folder.evaluation(evaluation.split) / "predictions"
    maps: Iterator[ClassIds]
    if saved is not None and names and all((saved / f"{name}.png").is_file() for name in names):
        maps = (_saved(saved / f"{name}.png") for name in names)
    else:
        maps = _predicted(run, evaluation, dataset, names, clock)
    rows = (
        {}
        if evaluation is None or evaluation.counts is None
        else dict(zip(evaluation.counts.names, evaluation.counts.counts, strict=True))
    )
    for name, found in zip(names, maps, strict=True):
        _require_scored(found, dataset.label(name), rows.get(name), len(dataset.classes.names), name)
        yield found


def _saved(path: Path) -> ClassIds:
    return np.asarray(read_label(PlainFile(str(path), path))).astype(np.uint8)


def _require_scored(found: ClassIds, truth: ClassIds, row: NDArray[np.int64] | None, classes: int, name: str) -> None:
    """Raise UnfitMapsError where a label map is not the one that the counts (C, 3) of its image are of."""
    if found.shape != truth.shape:
        raise UnfitMapsError(f"the saved prediction of '{name}' has another size than the image")
    if row is None:
        return
    off = int(np.abs(count(found[None], truth[None], classes)[0, :, TP] - row[:, TP]).sum())
    if off > MOST_DIFFERENT * max(1, int((truth != IGNORED).sum())):
        raise UnfitMapsError(f"its label map of '{name}' is not the one that was scored; run `segctl eval` on that run again")


def _predicted(
    run: Run, evaluation: Evaluation | None, dataset: "PreparedDataset", names: Sequence[str], clock: NetworkTimes | None
) -> Iterator[ClassIds]:
    if evaluation is not None and "@" in evaluation.split:
        raise UnfitMapsError("it was scored with another protocol, whose label maps only `segctl eval --save-predictions` keeps")
    if not run.folder.finished:
        raise UnfitMapsError("it has no model.pt")
    import torch

    from segctl.evaluate.predictor import predict_classes
    from segctl.models import load
    from segctl.runtime.determinism import any_image_size
    from segctl.runtime.device import choose_scoring_compute
    from segctl.runtime.memory import SCORE_WITH_LESS, out_of_memory_in_words

    compute = choose_scoring_compute(None, run.spec.train.precision, None)
    model: Any = load(run.folder.model, class_names=dataset.classes.names)
    model = model.to(compute.device, memory_format=torch.channels_last).eval()
    if clock is not None:
        clock.device = compute.device.type
    with any_image_size(), out_of_memory_in_words(compute.device, SCORE_WITH_LESS):
        for name in names:
            image = torch.from_numpy(np.ascontiguousarray(dataset.image(name)))[None]
            began = time.perf_counter()
            found = predict_classes(model, image.to(compute.device), run.spec.evaluate, compute)[0].cpu().numpy()
            if clock is not None:
                clock.times.append(1000 * (time.perf_counter() - began))
            yield found


@contextmanager
def faults_as_unfit() -> Iterator[None]:
    """Turns every fault of reading a run's pictures into an UnfitMapsError: a report without pictures is still a report."""
    try:
        yield
    except UnfitMapsError:
        raise
    except (SegctlError, OSError, KeyError, ValueError) as error:
        raise UnfitMapsError(first_line(error)) from error


@dataclass(frozen=True)
class DrawnImage:
    """An image that `segctl eval` drew for some runs: image uint8 (H, W, 3), truth, and the label maps by run's label."""

    image: NDArray[np.uint8]
    truth: ClassIds
    predictions: Mapping[str, ClassIds]


def drawn_images(runs: Sequence[Run], split: str) -> tuple[dict[str, DrawnImage], list[tuple[str, Rgb]]]:
    """The worst images of all runs by name, read back from their pictures, and the classes with their colours.

    A pixel of no class's colour is ignored. An evaluation that kept no colours has classes without names.
    """
    found = [(run, run.evaluations[split]) for run in runs if split in run.evaluations and run.evaluations[split].worst]
    if not found:
        return {}, []
    classes = next(([*each.colors.items()] for _, each in found if each.colors), [])
    if not classes:
        tiles = [_tile(image.tiles["truth"]) for _, each in found for image in each.worst]
        colors = sorted({tuple(map(int, color)) for tile in tiles for color in np.unique(tile.reshape(-1, 3), axis=0)})
        classes = [(f"colour {number + 1}", (red, green, blue)) for number, (red, green, blue) in enumerate(colors[:IGNORED])]
    known = [color for _, color in classes]
    images: dict[str, DrawnImage] = {}
    for run, each in found:
        for worst in each.worst:
            prediction = _ids(_tile(worst.tiles["prediction"]), known)
            if worst.image not in images:
                image, truth = _tile(worst.tiles["image"]), _ids(_tile(worst.tiles["truth"]), known)
                images[worst.image] = DrawnImage(image, truth, {})
            kept = images[worst.image]
            if prediction.shape == kept.truth.shape == kept.image.shape[:2]:
                images[worst.image] = DrawnImage(kept.image, kept.truth, {**kept.predictions, run.label: prediction})
    return {name: kept for name, kept in images.items() if kept.predictions}, classes


def _tile(path: Path) -> NDArray[np.uint8]:
    return read_image(PlainFile(str(path), path))


def _ids(tile: NDArray[np.uint8], colors: Sequence[Rgb]) -> ClassIds:
    """Colours uint8 (H, W, 3) -> ids uint8 (H, W); 255 where the colour is none of them."""
    keys = tile.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    ids = np.full(keys.shape, IGNORED, np.uint8)
    for number, (red, green, blue) in reversed([*enumerate(colors)]):  # of classes of one colour, the first wins
        ids[keys == (red << 16 | green << 8 | blue)] = number
    return ids
