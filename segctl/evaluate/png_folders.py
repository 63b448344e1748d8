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
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from segctl.data.datasets.cityscapes_classes import CLASSES
from segctl.data.datasets.pairs import IdMap, check_ids
from segctl.errors import InputError
from segctl.evaluate.png_cityscapes import benchmark_of
from segctl.evaluate.png_classes import GivenClasses
from segctl.evaluate.png_ids import predictions_to_train_ids, truth_to_train_ids
from segctl.evaluate.png_pairs import Ids, MaskPair, Matched, match, read_ids
from segctl.evaluate.tables import Content, score_content
from segctl.metrics.counts import FN, TP
from segctl.metrics.counts import pairs as count_pairs
from segctl.metrics.table import CountTable
from segctl.metrics.tally import Counted, ImageCounts, MapCounts, Tally, merge_counted

Progress = Callable[[int, int], None]
IGNORED = 255
MANY_OUTSIDE = 1.0
"""Percent of the valid pixels whose prediction is no class, from which on something is probably wrong."""

PLAIN_19 = tuple(map(str, range(19)))
CITY = re.compile(r"([a-z]+)_\d{6}_\d{6}")


@dataclass(frozen=True)
class FilesRequest:
    """Which PNGs, of which classes. A table of classes says which ids predictions hold, and ground truth whose names do not say
    else.

    resize: bring predictions of another size to the ground truth's, nearest pixel; refused without.
    """

    predictions: Path
    truths: Path
    classes: GivenClasses
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
    truth_ids: IdMap | None
    truth_table: NDArray[np.uint8] | None
    prediction_table: NDArray[np.uint8] | None
    extra: MapCounts | None

    def count(self, pair: MaskPair) -> ImageCounts:
        raw = read_ids(pair.truth)
        truth = _mapped(raw, self.truth_table, pair.truth)
        sized = self._sized(read_ids(pair.prediction), pair, truth.shape)
        prediction = _mapped(sized, self.prediction_table, pair.prediction)
        try:
            found = count_pairs(prediction[None], truth[None], len(self.request.classes.names), IGNORED)[0]
        except InputError as error:
            if self.truth_ids is not None:
                check_ids(f"'{pair.truth}'", raw, self.truth_ids)
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
    if matched.kind != "plain" and request.classes.names == PLAIN_19:  # the files' names say which classes these are
        request = replace(request, classes=GivenClasses(tuple(CLASSES.names)))
    reading = _reading(request, matched)
    tally = Tally(request.classes.names, _groups(matched.pairs))
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
    benchmark = benchmark_of(request.classes.names)
    content = score_content(counted, about, binary=request.binary, benchmark=benchmark)
    return ScoredFiles(counted, content, tuple(_warnings(counted.table, request)))


def _warnings(table: CountTable, request: FilesRequest) -> Iterator[str]:
    """What is allowed but probably not meant."""
    pixels = int(table.valid_pixels.sum())
    if pixels and (share := 100 * table.outside_predictions / pixels) > MANY_OUTSIDE:
        hint = (
            "; add --label-ids if they hold Cityscapes label ids"
            if len(table.class_names) == 19 and request.classes.table is None
            else ""
        )
        yield f"{share:.1f} % of the pixels are predicted as none of the {len(table.class_names)} classes{hint}"
    if len(table.class_names) == 2 and not table.counts[:, 1, [TP, FN]].any():
        yield "no ground truth shows class 1; 255 marks ignored pixels, so masks of 0 and 255 need --classes FILE with the id 255"


def _reading(request: FilesRequest, matched: Matched) -> _Reading:
    names, table = request.classes.names, request.classes.table
    benchmark = benchmark_of(names)
    truth_in = {"labelIds": CLASSES, "labelTrainIds": None, "plain": table}[matched.kind]
    if matched.kind == "labelIds" and benchmark is None:
        raise InputError(
            f"the ground truth in '{request.truths}' holds Cityscapes label ids, but other classes are asked for",
            "give --num-classes 19, or ground truth of the other classes",
        )
    instances = any(pair.instances is not None for pair in matched.pairs)
    categories = None if benchmark is None else benchmark.of_ids(names)
    return _Reading(
        request,
        None if truth_in is None else IdMap.of(truth_in, "correct the ground truth, or the classes", ignored=(IGNORED,)),
        None if truth_in is None else truth_to_train_ids(truth_in),
        None if table is None else predictions_to_train_ids(table),
        MapCounts(len(names), request.boundary, categories, benchmark) if request.boundary or instances else None,
    )


def _mapped(ids: Ids, table: NDArray[np.uint8] | None, path: Path) -> Ids:
    if table is None:
        return ids
    if ids.dtype != np.uint8:
        raise InputError(f"'{path}' is 16 bits deep, wanted 8 bits for ids of a class table", "save ids as an 8-bit PNG")
    return cv2.LUT(ids, table).astype(np.uint8, copy=False)


def _label_hint(request: FilesRequest) -> str:
    if len(request.classes.names) == 19 and request.classes.table is None:
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


def evaluate_files(
    predictions: Path | str,
    truths: Path | str,
    classes: int | Sequence[str],
    *,
    binary: bool = False,
    resize: bool = False,
    boundary: bool = False,
    workers: int = 1,
) -> dict[str, Any]:
    """The scores of a folder of predicted label maps against a folder of ground truth, as `segctl eval --pred --gt` gives them.

    classes: the number of classes, or their names in the order of ids.  binary: score the second class alone, as foreground.
    resize: bring predictions to the ground truth's size by nearest pixel.  boundary: also compute Boundary IoU.
    Returns what scores.json holds: scores in percent by name (`mIoU_D` …; None where undefined), `per_class`, `intervals` and
    `warnings`.
    Raises InputError naming the file that does not fit.
    """
    given = GivenClasses(tuple(map(str, range(classes)) if isinstance(classes, int) else classes))
    request = FilesRequest(Path(predictions), Path(truths), given, binary, resize, boundary, workers)
    scored = score_files(request)
    return {**scored.content, "warnings": list(scored.warnings)}
