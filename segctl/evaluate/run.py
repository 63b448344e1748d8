"""Score a trained run on a split and leave the tables and the worst images in its folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.errors import InputError
from segctl.evaluate.count_images import Extras, Map, Progress, SavePrediction, Scoring, count_split
from segctl.evaluate.draw_masks import write_index
from segctl.evaluate.partial_results import Keeper
from segctl.evaluate.png_cityscapes import benchmark_of
from segctl.evaluate.predictor import protocol_in_words, protocol_slug
from segctl.evaluate.tables import Content, score_content, write_tables
from segctl.evaluate.worst_images import write_worst
from segctl.files import file_sha256, sweep_partial
from segctl.metrics.scores import ImageScore, worst_images
from segctl.metrics.tally import Counted, MapCounts
from segctl.models import load
from segctl.runs import RunFolder
from segctl.runtime.device import Compute, choose_scoring_compute, loader_workers
from segctl.runtime.signals import requests_between_steps
from segctl.runtime.world import World
from segctl.schema.evaluate import EvaluateSpec, ProtocolChange
from segctl.schema.run import TrainRun

WORST = 8


@dataclass(frozen=True)
class Evaluation:
    """A run scored on a split."""

    folder: Path
    counted: Counted
    content: Content
    worst: list[ImageScore]


@dataclass(frozen=True)
class EvaluationRequest:
    """Which run, on which split of which data root, where to compute, and what is asked for beside its own protocol's scores."""

    run: RunFolder
    data_root: Path
    split: str | None = None
    device: str | None = None
    precision: str | None = None
    change: ProtocolChange = field(default_factory=ProtocolChange)
    batch: int = 1
    boundary: bool = False
    calibration: bool = False
    save_predictions: bool = False


@dataclass(frozen=True)
class OpenedRequest:
    """A request whose run, dataset and split are there."""

    spec: TrainRun
    dataset: PreparedDataset
    split: str
    protocol: EvaluateSpec
    compute: Compute
    folder: Path


def open_request(request: EvaluationRequest) -> OpenedRequest:
    """The run's description, its dataset and how to score it. Raises InputError where one of them is not there."""
    spec = request.run.read_run()
    if not request.run.finished:
        raise InputError(
            f"the run '{request.run.path}' has not finished: it holds no model.pt",
            f"finish it with `{request.run.resume_line(request.data_root)}`",
        )
    dataset = open_dataset(request.data_root, spec.data.dataset)
    split = request.split or spec.data.val_split
    dataset.names(split)
    protocol = request.change.apply(spec.evaluate, spec.data.crop)
    name = split if protocol == spec.evaluate else f"{split}@{protocol_slug(protocol)}"
    return OpenedRequest(
        spec,
        dataset,
        split,
        protocol,
        choose_scoring_compute(request.device, spec.train.precision, request.precision),
        request.run.evaluation(name),
    )


def evaluate_run(request: EvaluationRequest, world: World, progress: Progress | None = None) -> Evaluation | None:
    """Score a finished run's model.pt; only the main process writes files and gets the result.

    A stopped evaluation goes on where it was when the same is asked for again. Raises StoppedError when stopped by a signal.
    """
    opened = open_request(request)
    dataset, compute = opened.dataset, opened.compute
    model = load(request.run.model, class_names=dataset.classes.names).to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    workers = loader_workers(opened.spec.data.workers, compute.device, world.size)
    how = Scoring(opened.protocol, compute, workers, world, request.batch, _extras(request, opened))
    about = _about(request, opened)
    with requests_between_steps() as requests:
        keeper = Keeper(opened.folder / ".parts", about | _asked(request), requests)
        counted = count_split(model, dataset, opened.split, how, world.on_main(lambda: progress), keeper)

    def write() -> Evaluation:
        binary = dataset.classes.binary
        content = score_content(counted, about, binary=binary, benchmark=benchmark_of(dataset.classes.names))
        evaluation = Evaluation(opened.folder, counted, content, worst_images(counted.table, WORST, binary=binary))
        write_tables(opened.folder, counted, content)
        write_worst(opened.folder / "worst", evaluation.worst, model, dataset, how)
        keeper.clear()
        sweep_partial(opened.folder)
        return evaluation

    return world.on_main(write)


def _extras(request: EvaluationRequest, opened: OpenedRequest) -> Extras:
    names = opened.dataset.classes.names
    benchmark = benchmark_of(names)
    categories = None if benchmark is None else benchmark.of_ids(names)
    images = opened.dataset.names(opened.split)
    instances = bool(images) and opened.dataset.instance(images[0]) is not None
    maps = MapCounts(len(names), request.boundary, categories, benchmark) if request.boundary or instances else None
    save = _saver(opened) if request.save_predictions else None
    return Extras(request.calibration, maps, instances, save)


def _saver(opened: OpenedRequest) -> SavePrediction:
    palette, folder = opened.dataset.classes.palette(), opened.folder / "predictions"

    def save(name: str, prediction: Map) -> None:
        write_index(folder / f"{name}.png", prediction, palette)

    return save


def _asked(request: EvaluationRequest) -> dict[str, Any]:
    """What of a request decides what is counted and kept of an image."""
    return {
        "batch": request.batch,
        "boundary": request.boundary,
        "calibration": request.calibration,
        "save_predictions": request.save_predictions,
    }


def _about(request: EvaluationRequest, opened: OpenedRequest) -> dict[str, Any]:
    dataset, palette = opened.dataset, opened.dataset.classes.palette()
    return {
        "dataset": dataset.name,
        "trial": dataset.trial,
        "split": opened.split,
        "fingerprint": dataset.fingerprint,
        "protocol": protocol_in_words(opened.protocol),
        "precision": opened.compute.precision,
        "weights": "model.pt",
        "weights_sha256": file_sha256(request.run.model),
        "step": _weights_step(request.run),
        "classes": [{"name": name, "color": palette[index].tolist()} for index, name in enumerate(dataset.classes.names)],
    }


def _weights_step(run: RunFolder) -> int | None:
    """The step whose weights model.pt holds, as the run's log says."""
    ends = [event for event in run.read_log() if event["event"] == "end"]
    return ends[-1].get("weights_step") if ends else None
