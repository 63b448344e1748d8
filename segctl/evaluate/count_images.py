"""A network and images at their own size -> counts, under an evaluation protocol."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segctl.data.batches.loader import Sample, evaluation_samples, rank_share
from segctl.data.shards.dataset import PreparedDataset
from segctl.errors import SegctlError
from segctl.evaluate.class_map import ClassMap
from segctl.evaluate.partial_results import PartialResults
from segctl.evaluate.predictor import best_classes, class_probabilities, predict_classes
from segctl.files import Progress
from segctl.ignored import IGNORED
from segctl.metrics.calibration import fill_bins
from segctl.metrics.counts import checked_pairs, queue_pairs
from segctl.metrics.raters import shares_of, threshold_counts
from segctl.metrics.tally import EvaluationCounts, ImageCounts, MapCounter, Tally, merge_counts
from segctl.models.forward import ImageNetwork
from segctl.runtime.determinism import any_image_size
from segctl.runtime.device import Compute
from segctl.runtime.memory import SCORE_WITH_LESS, out_of_memory_in_words
from segctl.runtime.upload import upload
from segctl.runtime.world import World
from segctl.schema.evaluate import EvaluateSpec

LabelMap = NDArray[np.uint8]
"""The class id of each pixel: uint8 (H, W)."""

SavePrediction = Callable[[str, LabelMap], None]
"""Called with an image's name and its class map."""


class StoppedCountingError(SegctlError):
    """The follower of the progress stopped the counting. If one process stops, all processes raise this."""

    def __init__(self) -> None:
        super().__init__("counting was stopped")


@dataclass(frozen=True)
class Extras:
    """What an evaluation does besides counting tp, fp, fn and confusion.

    calibration: fill bins from probabilities.  raters: compare them with every rater's label map too.  maps: count what needs
    whole class maps.  instances: read instance maps for it.  save: called with every class map.
    """

    calibration: bool = False
    raters: bool = False
    maps: MapCounter | None = None
    instances: bool = False
    save: SavePrediction | None = None


@dataclass(frozen=True)
class Scoring:
    """How images are scored. workers: loader processes.  world: the processes that share the images.

    batch: at most this many neighbouring images of one size go through the network at once.  classes: what the network's classes
    are in a dataset that it was not trained on; None where they are the same.
    """

    protocol: EvaluateSpec
    compute: Compute
    workers: int = 0
    world: World = field(default_factory=World)
    batch: int = 1
    extras: Extras = Extras()
    classes: ClassMap | None = None


@dataclass(frozen=True)
class _Batch:
    """Samples with their predictions uint8 (B, H, W), and the counts that a GPU may still be working on.

    probabilities: float (B, C, H, W), kept where they are compared with several raters.
    """

    samples: list[Sample]
    prediction: Tensor
    pairs: Tensor
    bins: Tensor | None
    probabilities: Tensor | None


def count_images(
    model: ImageNetwork,
    dataset: PreparedDataset,
    names: Sequence[str],
    how: Scoring,
    progress: Progress | None = None,
    partial: PartialResults | None = None,
) -> EvaluationCounts:
    """Predict and count the named images in this process, at their own size. Memory holds two batches of predictions at most."""
    was_training = model.training
    model.eval()
    tally = Tally(dataset.classes.names, dataset.groups)
    try:
        with any_image_size(), out_of_memory_in_words(how.compute.device, SCORE_WITH_LESS):
            for batch in _one_behind(_predicted(model, dataset, names, how)):
                _finish(batch, dataset, how.extras, tally)
                if progress is not None:
                    progress(len(tally.names), len(names))
                if partial is not None:
                    partial.after_batch(tally)
    finally:
        model.train(was_training)
    return tally.counts()


def count_split(
    model: ImageNetwork,
    dataset: PreparedDataset,
    split: str,
    how: Scoring,
    progress: Progress | None = None,
    partial: PartialResults | None = None,
) -> EvaluationCounts:
    """Count every image of a split; see `count_shared`."""
    return count_shared(model, dataset, dataset.names(split), how, progress, partial)


def count_shared(
    model: ImageNetwork,
    dataset: PreparedDataset,
    names: list[str],
    how: Scoring,
    progress: Progress | None = None,
    partial: PartialResults | None = None,
) -> EvaluationCounts:
    """Count the named images once each, divided among the processes; every process gets the counts of all of them.

    Images that `partial` has from an earlier start are not counted again. Raises StoppedCountingError on every process where one
    of them was stopped.
    """
    resumed = [] if partial is None else partial.resume(how.world)
    done = {name for part in resumed for name in part.table.names}
    left = [name for name in names if name not in done]
    mine = rank_share(left, how.world.rank, how.world.size)

    def count() -> EvaluationCounts | None:
        try:
            counted = count_images(model, dataset, mine, how, progress, partial)
        except StoppedCountingError:
            return None  # raised below, after the gather: the other processes would wait in it for this one
        if partial is not None:
            partial.save(counted)
        return counted

    parts = how.world.gather(how.world.together(count))
    whole = [part for part in parts if part is not None]
    if len(whole) < len(parts):
        raise StoppedCountingError
    return merge_counts([*resumed, *whole], names)


def _predicted(model: ImageNetwork, dataset: PreparedDataset, names: Sequence[str], how: Scoring) -> Iterator[_Batch]:
    """The batches of the named images, in order, predicted and queued for counting."""
    device = how.compute.device
    for samples in _same_size(evaluation_samples(dataset, list(names), workers=how.workers), how.batch):
        images = _on_device([sample.image for sample in samples], device)
        label = _on_device([sample.label for sample in samples], device)
        probabilities = None
        if how.extras.calibration:
            probabilities = class_probabilities(model, images, how.protocol, how.compute)
            if how.classes is not None:
                probabilities = how.classes.of_probabilities(probabilities)
            prediction, bins = best_classes(probabilities), fill_bins(probabilities, label)
        else:
            prediction, bins = predict_classes(model, images, how.protocol, how.compute), None
            if how.classes is not None:
                prediction = how.classes.of_predictions(prediction)
        kept = probabilities if how.extras.raters else None
        yield _Batch(samples, prediction, queue_pairs(prediction, label, dataset.classes.num_classes), bins, kept)


def _on_device(parts: list[Tensor], device: torch.device) -> Tensor:
    """Tensors of one shape as a batch on the device. The loader's memory is page-locked, and a stack of it would not be."""
    return upload(parts[0].unsqueeze(0) if len(parts) == 1 else torch.stack(parts), device)


def _one_behind(batches: Iterator[_Batch]) -> Iterator[_Batch]:
    """Each batch, after the next one was sent to the device: a GPU computes while this one's counts are fetched."""
    waiting = None
    for batch in batches:
        if waiting is not None:
            yield waiting
        waiting = batch
    if waiting is not None:
        yield waiting


def _same_size(samples: Iterator[Sample], most: int) -> Iterator[list[Sample]]:
    """Groups of up to `most` neighbouring samples of one size."""
    together: list[Sample] = []
    for sample in samples:
        if together and (len(together) == most or sample.label.shape != together[0].label.shape):
            yield together
            together = []
        together.append(sample)
    if together:
        yield together


def _finish(batch: _Batch, dataset: PreparedDataset, extras: Extras, tally: Tally) -> None:
    """Fetch the counts from the device, count here what needs whole maps, and add both to the tally."""
    pairs = checked_pairs(batch.pairs.cpu()).numpy()
    bins = None if batch.bins is None else batch.bins.cpu().numpy()
    maps = batch.prediction.cpu().numpy() if extras.maps or extras.save else None
    for index, sample in enumerate(batch.samples):
        counted = ImageCounts(sample.name, pairs[index], bins=None if bins is None else bins[index])
        if batch.probabilities is not None:
            ratings = dataset.raters_of(sample.name).table()[dataset.votes(sample.name)].transpose(2, 0, 1)
            shares = shares_of(ratings, dataset.classes.num_classes)
            valid = sample.label.numpy() != IGNORED
            counts = threshold_counts(batch.probabilities[index].float().cpu().numpy(), shares, valid)
            counted = replace(counted, raters=counts)
        if maps is not None and extras.maps is not None:
            instances = dataset.instance(sample.name) if extras.instances else None
            counted = extras.maps.add(counted, maps[index], sample.label.numpy(), instances)
        if maps is not None and extras.save is not None:
            extras.save(sample.name, maps[index])  # before the image counts as done, so that a resumed evaluation lacks no map
        tally.add(counted)
