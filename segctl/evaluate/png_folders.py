"""Scores predictions of any framework: folders of PNGs -> the same counts and scores as those of a run. Needs no torch.

Threads do the work and not processes: decoding and counting release Python's lock, so threads use all cores without the cost of
starting processes and sending data. Only a few pairs are in memory at a time, so memory does not grow with the number of images.
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

from segctl.data.datasets.cityscapes_classes import CLASSES
from segctl.data.datasets.pairs import IdMap, check_ids
from segctl.errors import InputError
from segctl.evaluate.png_cityscapes import benchmark_of
from segctl.evaluate.png_classes import GivenClasses
from segctl.evaluate.png_ids import predictions_to_train_ids, truth_to_train_ids
from segctl.evaluate.png_pairs import Ids, PngPair, PngPairs, pair_pngs, read_ids
from segctl.evaluate.tables import ScoresJson, scores_json
from segctl.files import Progress
from segctl.ignored import IGNORED
from segctl.metrics.counts import FN, TP
from segctl.metrics.counts import pairs as count_pairs
from segctl.metrics.table import CountTable
from segctl.metrics.tally import EvaluationCounts, ImageCounts, MapCounter, Tally, merge_counts

MANY_OUTSIDE = 1.0
"""Warn when more than this percentage of the valid pixels is predicted as no class."""

PLAIN_19 = tuple(map(str, range(19)))
CITY = re.compile(r"([a-z]+)_\d{6}_\d{6}")


@dataclass(frozen=True)
class FilesRequest:
    """Which PNGs to score, and how.

    classes: with a table, PNGs hold its raw ids, except for ground truth whose names announce other ids.
    binary: score the foreground (class 1 of 2) alone.  resize: resize predictions to the size of their ground truth, nearest
    pixel; without it other sizes are refused.  boundary: also compute Boundary IoU.  workers: threads.
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
    """The counts, the content of scores.json, and what is allowed but probably not meant."""

    counts: EvaluationCounts
    scores: ScoresJson
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Counter:
    """Turns a pair of PNGs into counts. truth_ids: ids that ground truth may hold.  *_table: uint8 (256,), raw id -> train id."""

    request: FilesRequest
    truth_ids: IdMap | None
    truth_table: NDArray[np.uint8] | None
    prediction_table: NDArray[np.uint8] | None
    maps: MapCounter | None

    def count(self, pair: PngPair) -> ImageCounts:
        raw = read_ids(pair.truth)
        truth = _mapped(raw, self.truth_table, pair.truth)
        sized = self._sized(read_ids(pair.prediction), pair, truth.shape)
        prediction = _mapped(sized, self.prediction_table, pair.prediction)
        try:
            found = count_pairs(prediction[None], truth[None], len(self.request.classes.names), IGNORED)[0]
        except InputError as error:
            if self.truth_ids is not None:  # names the raw id that is in the file, and not the train id
                check_ids(f"'{pair.truth}'", raw, self.truth_ids)
            raise InputError(f"'{pair.truth}': {error.message}", _label_hint(self.request)) from error
        image = ImageCounts(pair.name, found)
        if self.maps is None:
            return image
        return self.maps.add(image, prediction, truth, None if pair.instances is None else read_ids(pair.instances))

    def _sized(self, prediction: Ids, pair: PngPair, shape: tuple[int, ...]) -> Ids:
        """The prediction (H, W) at its ground truth's size. Raises InputError where that needs a resize that nobody asked for."""
        if prediction.shape == shape:
            return prediction
        if not self.request.resize:
            (tall, wide), (height, width) = prediction.shape, shape
            raise InputError(
                f"'{pair.prediction}' has {wide}×{tall} pixels, but its ground truth '{pair.truth}' has {width}×{height}",
                "predict at the size of the ground truth, or add --resize nearest",
            )
        return cv2.resize(prediction, (shape[1], shape[0]), interpolation=cv2.INTER_NEAREST_EXACT).astype(prediction.dtype)


def score_files(request: FilesRequest, progress: Progress | None = None) -> ScoredFiles:
    """Count and score every pair. Raises InputError naming the file that does not fit."""
    paired = pair_pngs(request.predictions, request.truths)
    if paired.kind != "plain" and request.classes.names == PLAIN_19:
        # The file names announce Cityscapes, so its class names replace the bare numbers 0 to 18.
        request = replace(request, classes=GivenClasses(tuple(CLASSES.names)))
    counter = _counter(request, paired)
    tally = Tally(request.classes.names, _groups(paired.pairs))
    for image in _in_threads(counter.count, paired.pairs, request.workers):
        tally.add(image)
        if progress is not None:
            progress(len(tally.names), len(paired.pairs))
    counts = merge_counts([tally.counts()])
    about = {
        "predictions": str(request.predictions),
        "truth": str(request.truths),
        "protocol": "PNGs" + (", predictions resized to the ground truth's size, nearest pixel" if request.resize else ""),
    }
    benchmark = benchmark_of(request.classes.names)
    scores = scores_json(counts, about, binary=request.binary, benchmark=benchmark)
    return ScoredFiles(counts, scores, tuple(_warnings(counts.table, request)))


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
        yield "no ground truth has class 1; 255 marks ignored pixels, so masks of 0 and 255 need --classes FILE with the id 255"


def _counter(request: FilesRequest, paired: PngPairs) -> _Counter:
    names, table = request.classes.names, request.classes.table
    benchmark = benchmark_of(names)
    truth_in = {"labelIds": CLASSES, "labelTrainIds": None, "plain": table}[paired.kind]
    if paired.kind == "labelIds" and benchmark is None:
        raise InputError(
            f"the ground truth in '{request.truths}' holds Cityscapes label ids, but the options name other classes",
            "use --num-classes 19, or ground truth of those classes",
        )
    instances = any(pair.instances is not None for pair in paired.pairs)
    categories = None if benchmark is None else benchmark.of_ids(names)
    return _Counter(
        request,
        None if truth_in is None else IdMap.of(truth_in, "correct the ground truth or the classes", ignored=(IGNORED,)),
        None if truth_in is None else truth_to_train_ids(truth_in),
        None if table is None else predictions_to_train_ids(table),
        MapCounter(len(names), request.boundary, categories, benchmark) if request.boundary or instances else None,
    )


def _mapped(ids: Ids, table: NDArray[np.uint8] | None, path: Path) -> Ids:
    """Ids (H, W) through a table uint8 (256,); unchanged without a table. Raises InputError for 16-bit ids."""
    if table is None:
        return ids
    if ids.dtype != np.uint8:
        raise InputError(
            f"'{path}' is 16 bits deep, wanted 8 bits, because the class table has ids up to 255", "save ids as an 8-bit PNG"
        )
    return cv2.LUT(ids, table).astype(np.uint8, copy=False)


def _label_hint(request: FilesRequest) -> str:
    if len(request.classes.names) == 19 and request.classes.table is None:
        return "add --label-ids if these are Cityscapes label ids"
    return "check --num-classes; 255 marks ignored pixels"


def _groups(pairs: Sequence[PngPair]) -> dict[str, str] | None:
    """The city of each image, if all have Cityscapes names; frames of one city are not independent. None otherwise."""
    found = {pair.name: CITY.fullmatch(Path(pair.name).name) for pair in pairs}
    return {name: city[1] for name, city in found.items() if city} if all(found.values()) else None


def _in_threads(count: Callable[[PngPair], ImageCounts], pairs: Sequence[PngPair], workers: int) -> Iterator[ImageCounts]:
    """The counts of the pairs, in order. At most 2 · workers + 1 of them are under way at a time."""
    if workers <= 1:
        yield from map(count, pairs)
        return
    cv2.setNumThreads(1)  # OpenCV's own threads would compete with these for the cores
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
) -> ScoresJson:
    """The scores of a folder of predicted label maps against a folder of ground truth, as in `segctl eval --pred --gt`.

    classes: the number of classes, or their names in the order of ids.  binary: score the foreground (class 1 of 2) alone.
    resize: resize predictions to the size of their ground truth, nearest pixel.  boundary: also compute Boundary IoU.
    Returns the content of scores.json: scores in percent by name (`mIoU_D` …; None where undefined), `per_class`, `intervals` and
    `warnings`.
    Raises InputError naming the file that does not fit.
    """
    given = GivenClasses(tuple(map(str, range(classes)) if isinstance(classes, int) else classes))
    request = FilesRequest(Path(predictions), Path(truths), given, binary, resize, boundary, workers)
    scored = score_files(request)
    return {**scored.scores, "warnings": list(scored.warnings)}
