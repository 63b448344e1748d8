"""A network and images at their own size -> everything that is counted of them, under the run's protocol."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segctl.data.batches.loader import Sample, evaluation_samples, rank_share
from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import SegctlError
from segctl.evaluate.partial_results import Keeper
from segctl.evaluate.predictor import class_probabilities, predict
from segctl.metrics.calibration import fill_bins
from segctl.metrics.counts import checked_pairs, queue_pairs
from segctl.metrics.tally import Counted, ImageCounts, MapCounts, Tally, merge_counted
from segctl.models.external.foreign import Network
from segctl.runtime.device import Compute, scoring
from segctl.runtime.world import World
from segctl.schema.evaluate import EvaluateSpec

Progress = Callable[[int, int], None]
Map = NDArray[np.uint8]
SavePrediction = Callable[[str, Map], None]
"""Called with an image's name and its class map uint8 (H, W)."""


class StoppedCountingError(SegctlError):
    """Counting was left before its end, at the wish of whoever follows its progress; on every process, if on one."""

    def __init__(self) -> None:
        super().__init__("counting was stopped")


@dataclass(frozen=True)
class Extras:
    """What is done beside counting tp, fp, fn and confusion: calibration bins, what is counted from whole maps, and where class
    maps are kept."""

    calibration: bool = False
    maps: MapCounts | None = None
    instances: bool = False
    save: SavePrediction | None = None


@dataclass(frozen=True)
class Scoring:
    """How images are scored: the protocol, where, with how many loader processes, who shares the work, and how many images of
    one size go through the network at once."""

    protocol: EvaluateSpec
    compute: Compute
    workers: int = 0
    world: World = field(default_factory=World)
    batch: int = 1
    extras: Extras = Extras()


@dataclass(frozen=True)
class _Batch:
    """Samples on their way: what the network said of them, and what the device is still counting."""

    samples: list[Sample]
    prediction: Tensor
    pairs: Tensor
    bins: Tensor | None


def count_images(
    model: Network,
    dataset: PreparedDataset,
    names: Sequence[str],
    how: Scoring,
    progress: Progress | None = None,
    keeper: Keeper | None = None,
) -> Counted:
    """Predict and count the named images in this process, at their own size; only a batch of predictions is held at a time."""
    was_training = model.training
    model.eval()
    tally = Tally(dataset.classes.names, dataset.groups)
    try:
        with scoring(how.compute.device):
            for batch in _one_behind(_predicted(model, dataset, names, how)):
                _finish(batch, dataset, how.extras, tally)
                if progress is not None:
                    progress(len(tally.names), len(names))
                if keeper is not None:
                    keeper.after_batch(tally)
    finally:
        model.train(was_training)
    return tally.counted()


def count_split(
    model: Network,
    dataset: PreparedDataset,
    split: str,
    how: Scoring,
    progress: Progress | None = None,
    keeper: Keeper | None = None,
) -> Counted:
    """Every image of a split, as `count_shared` counts them."""
    return count_shared(model, dataset, dataset.names(split), how, progress, keeper)


def count_shared(
    model: Network,
    dataset: PreparedDataset,
    names: list[str],
    how: Scoring,
    progress: Progress | None = None,
    keeper: Keeper | None = None,
) -> Counted:
    """The named images once each, whatever the number of processes: each takes its stride, and all share the integers.

    What a keeper kept of an earlier start is not counted again.
    """
    kept = [] if keeper is None else keeper.take_up(how.world)
    done = {name for part in kept for name in part.table.names}
    left = [name for name in names if name not in done]
    mine = rank_share(left, how.world.rank, how.world.size)

    def count() -> Counted | None:
        try:
            counted = count_images(model, dataset, mine, how, progress, keeper)
        except StoppedCountingError:
            return None
        if keeper is not None:
            keeper.keep(counted)
        return counted

    parts = how.world.gather(how.world.together(count))
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts):
        raise StoppedCountingError
    return merge_counted([*kept, *whole], names)


def _predicted(model: Network, dataset: PreparedDataset, names: Sequence[str], how: Scoring) -> Iterator[_Batch]:
    device = how.compute.device
    for samples in _same_size(evaluation_samples(dataset, list(names), workers=how.workers), how.batch):
        images = torch.stack([sample.image for sample in samples]).to(device, non_blocking=True)
        label = torch.stack([sample.label for sample in samples]).to(device, non_blocking=True)
        if how.extras.calibration:
            probabilities = class_probabilities(model, images, how.protocol, how.compute)
            prediction, bins = probabilities.argmax(1).to(torch.uint8), fill_bins(probabilities, label)
        else:
            prediction, bins = predict(model, images, how.protocol, how.compute), None
        yield _Batch(samples, prediction, queue_pairs(prediction, label, model.num_classes), bins)


def _one_behind(batches: Iterator[_Batch]) -> Iterator[_Batch]:
    """Each batch only when the next one has been handed to the device, so that fetching counts does not keep a GPU waiting."""
    waiting = None
    for batch in batches:
        if waiting is not None:
            yield waiting
        waiting = batch
    if waiting is not None:
        yield waiting


def _same_size(samples: Iterator[Sample], most: int) -> Iterator[list[Sample]]:
    """Up to `most` neighbours of one size together."""
    together: list[Sample] = []
    for sample in samples:
        if together and (len(together) == most or sample.label.shape != together[0].label.shape):
            yield together
            together = []
        together.append(sample)
    if together:
        yield together


def _finish(batch: _Batch, dataset: PreparedDataset, extras: Extras, tally: Tally) -> None:
    """Fetch what was counted on the device, count the rest here, and add it up."""
    pairs = checked_pairs(batch.pairs).cpu().numpy()
    bins = None if batch.bins is None else batch.bins.cpu().numpy()
    maps = batch.prediction.cpu().numpy() if extras.maps or extras.save else None
    for index, sample in enumerate(batch.samples):
        counted = ImageCounts(sample.name, pairs[index], bins=None if bins is None else bins[index])
        if maps is not None and extras.maps is not None:
            instances = dataset.instance(sample.name) if extras.instances else None
            counted = extras.maps.add(counted, maps[index], sample.label.numpy(), instances)
        if maps is not None and extras.save is not None:
            extras.save(sample.name, maps[index])  # on the disk before its image counts as done
        tally.add(counted)
