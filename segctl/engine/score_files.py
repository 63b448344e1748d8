"""Score predictions of any framework: pairs of PNGs -> the same counts and scores as a run's. Needs no torch.

Chosen: threads, because decoding and counting release Python's lock, so nothing is sent between processes and none has to
start; a few pairs are in the air at a time, so memory does not grow with the number of images.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from segctl.data.sources.cityscapes_classes import CLASSES
from segctl.engine.cityscapes import benchmark_of, labels_to_train_ids, predictions_to_train_ids
from segctl.engine.mask_files import Ids, MaskPair, Matched, match, read_ids
from segctl.engine.score_tables import Content, score_content
from segctl.errors import InputError
from segctl.metrics.counted import Counted, ImageCounts, MapCounts, Tally, merge_counted
from segctl.metrics.counts import FN, TP
from segctl.metrics.counts import pairs as count_pairs
from segctl.metrics.table import CountTable

Progress = Callable[[int, int], None]
IGNORED = 255
MANY_OUTSIDE = 1.0
"""Percent of the valid pixels whose prediction is no class, from which on something is probably wrong."""

PLAIN_19 = tuple(map(str, range(19)))
CITY = re.compile(r"([a-z]+)_\d{6}_\d{6}")


@dataclass(frozen=True)
class FilesRequest:
    """Which PNGs, of which classes. label_ids: predictions hold Cityscapes label ids, and ground truth that does not say else.

    resize: bring predictions of another size to the ground truth's, nearest pixel; refused without.
    """

    predictions: Path
    truths: Path
    class_names: tuple[str, ...]
    label_ids: bool = False
    binary: bool = False
    resize: bool = False
    boundary: bool = False
    workers: int = 1


@dataclass(frozen=True)
class ScoredFiles:
    """What was counted, and what scores.json holds of it."""

    counted: Counted
    content: Content
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Reading:
    """How a pair of PNGs becomes counts."""

    request: FilesRequest
    truth_table: NDArray[np.uint8] | None
    prediction_table: NDArray[np.uint8] | None
    extra: MapCounts | None

    def count(self, pair: MaskPair) -> ImageCounts:
        truth = _mapped(read_ids(pair.truth), self.truth_table)
        prediction = _mapped(self._sized(read_ids(pair.prediction), pair, truth.shape), self.prediction_table)
        try:
            found = count_pairs(prediction[None], truth[None], len(self.request.class_names), IGNORED)[0]
        except InputError as error:
            raise InputError(f"'{pair.truth}': {error.message}", _label_hint(self.request)) from error
        counted = ImageCounts(pair.name, found)
        if self.extra is None:
            return counted
        return self.extra.add(counted, prediction, truth, None if pair.instances is None else read_ids(pair.instances))

    def _sized(self, prediction: Ids, pair: MaskPair, shape: tuple[int, ...]) -> Ids:
        if prediction.shape == shape:
            return prediction
        if not self.request.resize:
            (tall, wide), (height, width) = prediction.shape, shape
            raise InputError(
                f"'{pair.prediction}' has {wide}×{tall} pixels, and its ground truth '{pair.truth}' has {width}×{height}",
                "predict at the ground truth's size, or add --resize nearest",
            )
        return cv2.resize(prediction, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST_EXACT).astype(prediction.dtype)


def score_files(request: FilesRequest, progress: Progress | None = None) -> ScoredFiles:
    """Count every pair and score them. Raises InputError naming the file that does not fit."""
    matched = match(request.predictions, request.truths)
    if matched.kind != "plain" and request.class_names == PLAIN_19:
        request = replace(request, class_names=tuple(CLASSES.names))  # the files' names say which classes these are
    reading = _reading(request, matched)
    tally = Tally(request.class_names, _groups(matched.pairs))
    for image in _in_threads(reading.count, matched.pairs, request.workers):
        tally.add(image)
        if progress is not None:
            progress(len(tally.names), len(matched.pairs))
    counted = merge_counted([tally.counted()])
    about = {
        "predictions": str(request.predictions),
        "truth": str(request.truths),
        "protocol": "PNGs" + (", predictions resized to the ground truth's size, nearest pixel" if request.resize else ""),
    }
    benchmark = benchmark_of(request.class_names)
    content = score_content(counted, about, binary=request.binary, benchmark=benchmark)
    return ScoredFiles(counted, content, tuple(_warnings(counted.table, request)))


def _warnings(table: CountTable, request: FilesRequest) -> Iterator[str]:
    """What is allowed but probably not meant."""
    pixels = int(table.valid_pixels.sum())
    if pixels and (share := 100 * table.outside_predictions / pixels) > MANY_OUTSIDE:
        hint = (
            "; add --label-ids if they hold Cityscapes label ids"
            if len(table.class_names) == 19 and not request.label_ids
            else ""
        )
        yield f"{share:.1f} % of the pixels are predicted as none of the {len(table.class_names)} classes{hint}"
    if len(table.class_names) == 2 and not table.counts[:, 1, [TP, FN]].any():
        yield "no ground truth shows class 1; 255 marks ignored pixels, so masks of 0 and 255 must be saved as 0 and 1"


def _reading(request: FilesRequest, matched: Matched) -> _Reading:
    benchmark = benchmark_of(request.class_names)
    truth_in_label_ids = matched.kind == "labelIds" or (matched.kind == "plain" and request.label_ids)
    if truth_in_label_ids and benchmark is None:
        raise InputError(
            f"the ground truth in '{request.truths}' holds Cityscapes label ids, but other classes are asked for",
            "give --num-classes 19, or ground truth of the other classes",
        )
    instances = any(pair.instances is not None for pair in matched.pairs)
    categories = None if benchmark is None else benchmark.of_ids(request.class_names)
    return _Reading(
        request,
        labels_to_train_ids() if truth_in_label_ids else None,
        predictions_to_train_ids() if request.label_ids else None,
        MapCounts(len(request.class_names), request.boundary, categories, benchmark) if request.boundary or instances else None,
    )


def _mapped(ids: Ids, table: NDArray[np.uint8] | None) -> Ids:
    if table is None:
        return ids
    if ids.dtype != np.uint8:
        raise InputError(f"got label ids of {ids.dtype}, wanted 8-bit ones")
    return cv2.LUT(ids, table).astype(np.uint8, copy=False)


def _label_hint(request: FilesRequest) -> str:
    if len(request.class_names) == 19 and not request.label_ids:
        return "add --label-ids if these are Cityscapes label ids"
    return "check --num-classes; 255 marks ignored pixels"


def _groups(pairs: Sequence[MaskPair]) -> dict[str, str] | None:
    """The city of each image where all are named as Cityscapes names them: frames of one city are not independent."""
    found = {pair.name: CITY.fullmatch(Path(pair.name).name) for pair in pairs}
    return {name: city[1] for name, city in found.items() if city} if all(found.values()) else None


def _in_threads(count: Callable[[MaskPair], ImageCounts], pairs: Sequence[MaskPair], workers: int) -> Iterator[ImageCounts]:
    """The counts of the pairs in their order, a few of them under way at a time."""
    if workers <= 1:
        yield from map(count, pairs)
        return
    cv2.setNumThreads(1)  # the threads here share the cores
    under_way: deque[Future[ImageCounts]] = deque()
    with ThreadPoolExecutor(workers) as threads:
        try:
            for pair in pairs:
                under_way.append(threads.submit(count, pair))
                if len(under_way) > 2 * workers:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()
