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
from segctl.data.datasets.own.label_rule import OwnRule
from segctl.data.datasets.pairs import IdMap, check_ids
from segctl.errors import InputError
from segctl.evaluate.png_cityscapes import benchmark_of
from segctl.evaluate.png_classes import GivenClasses
from segctl.evaluate.png_ids import predictions_to_train_ids, truth_to_train_ids
from segctl.evaluate.png_outside import JudgedPredictions, Strays, find_strays
from segctl.evaluate.png_pairs import Ids, PngPair, PngPairs, pair_pngs, read_ids, read_instances
from segctl.evaluate.tables import ScoresJson, scores_json
from segctl.files import Progress
from segctl.ignored import IGNORED
from segctl.metrics.counts import FN, TP
from segctl.metrics.counts import pairs as count_pairs
from segctl.metrics.table import CountTable
from segctl.metrics.tally import USUAL, Choice, EvaluationCounts, ImageCounts, MapCounter, Tally, merge_counts

MOST_IGNORED = 30.0
"""Warn when more than this percentage of the ground truth is ignored."""
WIDE_IGNORED = 65535
"""The default ignored id of more than 255 classes, where 255 is a class: the largest id of 16 bits."""

PLAIN_19 = tuple(map(str, range(19)))
CITY = re.compile(r"([a-z]+)_\d{6}_\d{6}")


@dataclass(frozen=True)
class FilesRequest:
    """Which PNGs to score, and how.

    classes: with a table, PNGs hold its raw ids, except for ground truth whose names announce other ids.
    binary: score the foreground (class 1 of 2) alone.  resize: resize predictions to the size of their ground truth, nearest
    pixel; without it other sizes are refused.  boundary: also compute Boundary IoU.  workers: threads.
    ignored: the id of ignored pixels of the ground truth; if None, 255, or 65535 where 255 is a class.
    instances: a folder of instance maps with the names of the ground truth (see instance_ids.py).  choice: which scores beside
    the usual.
    """

    predictions: Path
    truths: Path
    classes: GivenClasses
    binary: bool = False
    resize: bool = False
    boundary: bool = False
    workers: int = 1
    ignored: int | None = None
    instances: Path | None = None
    choice: Choice = USUAL

    @property
    def ignored_id(self) -> int:
        """The id of ignored pixels in the files of the ground truth."""
        if self.ignored is not None:
            return self.ignored
        return IGNORED if len(self.classes.names) <= IGNORED else WIDE_IGNORED


@dataclass(frozen=True)
class ScoredFiles:
    """The counts, the content of scores.json, and what is allowed but probably a mistake."""

    counts: EvaluationCounts
    scores: ScoresJson
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Counter:
    """Turns a pair of PNGs into counts. truth_ids: ids that ground truth may hold.  *_table: uint8 (256,), raw id -> train id.

    truth_rule: what palettes of ground truth mean.  ignored: the train id of ignored pixels.
    """

    request: FilesRequest
    truth_rule: OwnRule | None
    truth_ids: IdMap | None
    truth_table: NDArray[np.uint8] | None
    prediction_table: NDArray[np.uint8] | None
    maps: MapCounter | None
    ignored: int

    def count(self, pair: PngPair) -> "_Counted":
        raw = read_ids(pair.truth, self.truth_rule)
        truth = _mapped(raw, self.truth_table, pair.truth)
        sized = self._sized(read_ids(pair.prediction, self.request.classes.rule), pair, truth.shape)
        prediction = _mapped(sized, self.prediction_table, pair.prediction)
        classes = len(self.request.classes.names)
        try:
            found = count_pairs(prediction[None], truth[None], classes, self.ignored)[0]
        except InputError as error:
            if self.truth_ids is not None:  # names the raw id that is in the file, and not the train id
                check_ids(f"'{pair.truth}'", raw, self.truth_ids)
            raise InputError(f"'{pair.truth}': {error.message}", _label_hint(self.request)) from error
        image = ImageCounts(pair.name, found)
        if self.maps is not None:
            image = self.maps.add(image, prediction, truth, self._instances(pair.instances, truth.shape))
        strays = find_strays(sized, prediction, truth, classes, self.ignored) if found[:, -1].any() else Strays()
        return _Counted(image, truth.size, int(raw.max(initial=0)), strays)

    def _instances(self, path: Path | None, shape: tuple[int, ...]) -> Ids | None:
        """The instance map (H, W): one beside a Cityscapes ground truth is coded as wanted, others are numbered anew."""
        if path is None:
            return None
        found = read_ids(path) if self.request.instances is None else read_instances(path)
        if found.shape != shape:
            raise InputError(
                f"'{path}' has {found.shape[1]}×{found.shape[0]} pixels, but its ground truth has {shape[1]}×{shape[0]}",
                "give instance maps at the size of the ground truth",
            )
        return found

    def ignored_ids(self) -> list[int]:
        """The ids of ground truth that are ignored."""
        if self.truth_table is None or self.truth_ids is None:
            return [self.ignored]
        known = np.frombuffer(self.truth_ids.known, bool)
        return np.flatnonzero((self.truth_table == IGNORED) & known).tolist()

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


@dataclass(frozen=True)
class _Counted:
    """The counts of a pair, the pixels of its ground truth and their highest id in the file, and its predictions of no class."""

    image: ImageCounts
    pixels: int
    highest: int
    strays: Strays


def score_files(request: FilesRequest, progress: Progress | None = None) -> ScoredFiles:
    """Count and score every pair.

    Raises InputError naming the file that does not fit, and where the predictions certainly hold other ids (see png_outside.py).
    """
    paired = pair_pngs(request.predictions, request.truths, request.instances)
    if paired.kind != "plain" and request.classes.names == PLAIN_19:
        # The file names announce Cityscapes, so its class names replace the bare numbers 0 to 18.
        request = replace(request, classes=GivenClasses(tuple(CLASSES.names)))
    counter = _counter(request, paired)
    tally = Tally(request.classes.names, _groups(paired.pairs))
    pixels, highest, strays = 0, 0, Strays()
    for counted in _in_threads(counter.count, paired.pairs, request.workers):
        tally.add(counted.image)
        pixels, highest = pixels + counted.pixels, max(highest, counted.highest)
        strays.update(counted.strays)
        if progress is not None:
            progress(len(tally.names), len(paired.pairs))
    counts = merge_counts([tally.counts()])
    ignored_share = 100 * (1 - int(counts.table.valid_pixels.sum()) / pixels) if pixels else 0.0
    warnings = [
        *_judged(request, counts, strays).warnings(),
        *_truth_warnings(request, counts.table, ignored_share),
        *_name_warnings(request, paired, highest),
    ]
    about = {
        "predictions": str(request.predictions),
        "truth": str(request.truths),
        "protocol": "PNGs" + (", predictions resized to the ground truth's size, nearest pixel" if request.resize else ""),
        "ignored_ids": counter.ignored_ids(),
        "ignored_percent": ignored_share,
    }
    benchmark = benchmark_of(request.classes.names)
    scores = scores_json(counts, about, binary=request.binary, benchmark=benchmark, choice=request.choice)
    return ScoredFiles(counts, scores, tuple(warnings))


def _judged(request: FilesRequest, counts: EvaluationCounts, strays: Strays) -> JudgedPredictions:
    names, table = request.classes.names, request.classes.table
    ids, allowed = list(range(len(names))), frozenset[int]()
    if table is not None:
        raw = {row.train_id: row.raw_id for row in table.rows if row.raw_id is not None and row.train_id != IGNORED}
        ids = [raw[index] for index in range(len(names))]
        allowed = frozenset(row.raw_id for row in table.rows if row.raw_id is not None and row.train_id == IGNORED)
    return JudgedPredictions(names, ids, allowed, counts.table, counts.confusion, strays)


def _truth_warnings(request: FilesRequest, table: CountTable, ignored_share: float) -> Iterator[str]:
    if len(table.class_names) == 2 and not table.counts[:, 1, [TP, FN]].any():
        yield "no ground truth has class 1; 255 marks ignored pixels, so masks of 0 and 255 need --classes FILE with the id 255"
    elif ignored_share > MOST_IGNORED:
        yield f"{ignored_share:.1f} % of the ground truth is ignored"


def _name_warnings(request: FilesRequest, paired: PngPairs, highest: int) -> Iterator[str]:
    """Names that announce label ids above ids that may be the user's own."""
    classes = request.classes
    if paired.kind == "labelIds" and classes.table is None and benchmark_of(classes.names) is not None and highest < 19:
        yield (
            "the names of the ground truth announce Cityscapes label ids, but no id is above 18; "
            "for 19 classes of your own, name them with --classes FILE"
        )


def _counter(request: FilesRequest, paired: PngPairs) -> _Counter:
    names, table = request.classes.names, request.classes.table
    benchmark = benchmark_of(names)
    # The user's own classes win over names that look like those of Cityscapes, which many people give to their own files.
    kind = "plain" if benchmark is None else paired.kind
    truth_in = {"labelIds": CLASSES, "labelTrainIds": None, "plain": table}[kind]
    ignored = IGNORED if truth_in is not None else request.ignored_id
    if truth_in is not None and request.ignored is not None:
        for row in truth_in.rows:
            if row.raw_id == request.ignored and row.train_id != IGNORED:
                raise InputError(f"--ignore {request.ignored} is the id of the class '{row.name}'", "leave --ignore out")
    without = [pair for pair in paired.pairs if pair.instances is None]
    instances = len(without) < len(paired.pairs)
    if instances and without:
        raise InputError(
            f"'{without[0].truth}' has no instance map beside it, but others of --gt have one",
            "add the missing maps, or remove them all",
        )
    categories = None if benchmark is None else benchmark.of_ids(names)
    return _Counter(
        request,
        request.classes.rule if kind == "plain" else None,
        None
        if truth_in is None
        else IdMap.of(truth_in, "correct the ground truth or the classes", ignored=_in_bytes(request.ignored_id)),
        None if truth_in is None else truth_to_train_ids(truth_in, request.ignored_id),
        None if table is None else predictions_to_train_ids(table),
        MapCounter(len(names), request.boundary, categories, benchmark, ignored) if request.boundary or instances else None,
        ignored,
    )


def _in_bytes(found: int) -> tuple[int, ...]:
    """The id if an 8-bit file can hold it, else nothing."""
    return (found,) if found < 256 else ()


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
    return f"check --num-classes; {request.ignored_id} marks ignored pixels, or give --ignore ID"


def _groups(pairs: Sequence[PngPair]) -> dict[str, str] | None:
    """The city of each image, if all have Cityscapes names; frames of one city are not independent. None otherwise."""
    found = {pair.name: CITY.fullmatch(Path(pair.name).name) for pair in pairs}
    return {name: city[1] for name, city in found.items() if city} if all(found.values()) else None


def _in_threads(count: Callable[[PngPair], _Counted], pairs: Sequence[PngPair], workers: int) -> Iterator[_Counted]:
    """The counts of the pairs, in order. At most 2 · workers + 1 of them are under way at a time."""
    if workers <= 1:
        yield from map(count, pairs)
        return
    cv2.setNumThreads(1)  # OpenCV's own threads would compete with these for the cores
    under_way: deque[Future[_Counted]] = deque()
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
    ignored: int | None = None,
) -> ScoresJson:
    """The scores of a folder of predicted label maps against a folder of ground truth, as in `segctl eval --pred --gt`.

    classes: the number of classes, or their names in the order of ids.  binary: score the foreground (class 1 of 2) alone.
    resize: resize predictions to the size of their ground truth, nearest pixel.  boundary: also compute Boundary IoU.
    ignored: the id of ignored pixels; default 255, or 65535 for more than 255 classes.
    Returns the content of scores.json: scores in percent by name (`mIoU_D` …; None where undefined), `per_class`, `intervals` and
    `warnings`.
    Raises InputError naming the file that does not fit, and where the predictions certainly hold other ids than the ground truth.
    """
    given = GivenClasses(tuple(map(str, range(classes)) if isinstance(classes, int) else classes))
    request = FilesRequest(Path(predictions), Path(truths), given, binary, resize, boundary, workers, ignored)
    scored = score_files(request)
    return {**scored.scores, "warnings": list(scored.warnings)}
