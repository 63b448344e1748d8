"""Scores a trained run on a split, and writes the tables and the worst images into the run's folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from segctl.data.files.bands import BandScaling, differing_scaling
from segctl.data.shards.dataset import PreparedDataset, open_dataset
from segctl.errors import InputError
from segctl.evaluate.class_map import ClassMap, map_classes
from segctl.evaluate.count_images import Extras, LabelMap, SavePrediction, Scoring, count_split
from segctl.evaluate.draw_masks import write_index
from segctl.evaluate.partial_results import PartialResults
from segctl.evaluate.png_cityscapes import benchmark_of
from segctl.evaluate.program_network import ProgramNetwork, require_program_fits
from segctl.evaluate.tables import ScoresJson, scores_json, write_tables
from segctl.evaluate.worst_images import write_worst
from segctl.files import Progress, file_sha256, sweep_partial
from segctl.metrics.scores import ImageScore, worst_images
from segctl.metrics.tally import USUAL, Choice, EvaluationCounts, MapCounter
from segctl.models import load, read
from segctl.models.forward import ImageNetwork
from segctl.models.heads.blocks import has_unseen_taps
from segctl.pixel_types import require_type
from segctl.programs import open_program
from segctl.runs import RunFolder
from segctl.runtime.cores import loader_workers
from segctl.runtime.device import Compute, choose_compute, choose_scoring_compute, require_own_gpus
from segctl.runtime.signals import requests_between_steps
from segctl.runtime.world import World
from segctl.schema.cross_checks import reach_beyond_crop
from segctl.schema.evaluate import EvaluateSpec, ProtocolChange, protocol_in_words, protocol_slug
from segctl.schema.run import TrainRun

WORST = 8
"""Images that are drawn as pictures."""


@dataclass(frozen=True)
class ScoredRun:
    """A run scored on a split: where the tables are, the counts, the content of scores.json, and the worst images."""

    folder: Path
    counts: EvaluationCounts
    scores: ScoresJson
    worst: list[ImageScore]


@dataclass(frozen=True)
class EvaluationRequest:
    """Which run to score, on what, and how.

    split: the preset's val_split if None.  device, precision: the best there is, and as trained, if None.
    dataset: another prepared dataset than the run's own, whose classes are the network's by name, or by the file class_map (see
    class_map.py).  change: changes to the run's own protocol.  batch: images of one size that go through the network at once.
    boundary, calibration: scores to compute as well.  save_predictions: write every class map as an index PNG.
    choice: which scores beside the usual.  program: an exported file to score in place of the run's network.
    trust_program: whether it may be a .pt2 or TorchScript file, which may run its code when it is read.
    """

    run: RunFolder
    data_root: Path
    split: str | None = None
    dataset: str | None = None
    class_map: Path | None = None
    device: str | None = None
    precision: str | None = None
    change: ProtocolChange = field(default_factory=ProtocolChange)
    batch: int = 1
    boundary: bool = False
    calibration: bool = False
    save_predictions: bool = False
    program: Path | None = None
    trust_program: bool = False
    choice: Choice = USUAL


@dataclass(frozen=True)
class OpenedRequest:
    """A request whose run, dataset and split exist.

    folder: where the evaluation's files go.  classes: what the network's classes are in the dataset; None for the run's own.
    warnings: what is allowed but costs points, in sentences.
    """

    spec: TrainRun
    dataset: PreparedDataset
    split: str
    classes: ClassMap | None
    protocol: EvaluateSpec
    compute: Compute
    folder: Path
    warnings: tuple[str, ...] = ()


def open_request(request: EvaluationRequest) -> OpenedRequest:
    """Open what a request names. Raises InputError where the run is not finished, or its dataset or split does not exist."""
    spec = request.run.read_run()
    request.run.require_finished(request.data_root)
    name = spec.data.dataset if request.dataset is None else request.dataset
    if request.class_map is not None and name == spec.data.dataset:
        raise InputError("--class-map is for another dataset than the run's own", "add --dataset NAME, or leave --class-map out")
    dataset = open_dataset(request.data_root, name)
    split = spec.data.val_split if request.split is None else request.split
    if name != spec.data.dataset and request.split is None and split not in dataset.splits:
        if len(dataset.splits) > 1:
            raise InputError(
                f"dataset '{name}' has no split '{split}', which the run validates on",
                f"add --split: {', '.join(dataset.splits)}",
            )
        split = next(iter(dataset.splits))
    dataset.labelled_names(split, "--split")  # raises where there is no such split, or no label to compare with
    classes, warnings = None, []
    if name != spec.data.dataset:
        saved = read(request.run.model)
        classes = map_classes(saved.class_names, dataset.classes.names, request.class_map, name)
        scaling = None if saved.pixels is None else BandScaling.model_validate(saved.pixels)
        warnings = [text for text in (*classes.warnings(), differing_scaling(scaling, dataset.pixels)) if text]
        if request.calibration and not classes.is_one_to_one:
            raise InputError(
                f"--calibration needs the probability of each class of '{name}', and the network has other classes",
                "leave --calibration out",
            )
    protocol = request.change.apply(spec.evaluate, spec.data.crop)
    if request.program is None and (text := reach_beyond_crop(spec, protocol, dataset.usual_size(split))):
        height, width = spec.data.crop
        if has_unseen_taps(load(request.run.model).head, spec.model.output_stride, spec.data.crop):
            warnings.append(
                f"{text}: its outer weights learnt nothing there, are not zero, and disturb whole pictures, which can cost many "
                f"points. Score in tiles (--protocol sliding --tile {height}x{width}), or train it again: since 0.2 they are zero"
            )
    place = split if name == spec.data.dataset else f"{split}@{name}"
    changes = [] if protocol == spec.evaluate else [protocol_slug(protocol)]
    if request.program is None:
        compute = choose_scoring_compute(request.device, spec.train.precision, request.precision)
    else:
        if request.precision not in (None, "auto", "fp32"):
            raise InputError("--precision cannot be combined with --model: the file has its own", "leave --precision out")
        compute = choose_compute("cpu", "fp32")  # of the counting; the file runs where --device says
        changes.insert(0, request.program.name)
    folder = request.run.evaluation("@".join([place, *(["+".join(changes)] if changes else [])]))
    return OpenedRequest(spec, dataset, split, classes, protocol, compute, folder, tuple(warnings))


def evaluate_run(request: EvaluationRequest, world: World, progress: Progress | None = None) -> ScoredRun | None:
    """Score a finished run's network. Only the main process writes files and gets the result; the others get None.

    Calling it again with the same request resumes an evaluation that was stopped. Raises StoppedError when a signal stops it, and
    InputError as `open_request` does.
    """
    opened = open_request(request)
    dataset, compute = opened.dataset, opened.compute
    require_own_gpus(compute.device, world)
    model = _network(request, opened)
    workers = loader_workers(opened.spec.data.workers, compute.device.type, world.local_size)
    how = Scoring(opened.protocol, compute, workers, world, request.batch, _extras(request, opened), opened.classes)
    about = _about(request, opened)
    with requests_between_steps() as requests:
        partial = PartialResults(opened.folder / ".parts", about | _what_is_counted(request), requests)
        counts = count_split(model, dataset, opened.split, how, world.on_main(lambda: progress), partial)

    def write() -> ScoredRun:
        binary = dataset.classes.binary
        scores = scores_json(counts, about, binary=binary, benchmark=benchmark_of(dataset.classes.names), choice=request.choice)
        scored = ScoredRun(opened.folder, counts, scores, worst_images(counts.table, WORST, binary=binary))
        write_tables(opened.folder, counts, scores)
        write_worst(opened.folder / "worst", scored.worst, model, dataset, how)
        partial.clear()
        sweep_partial(opened.folder)
        return scored

    return world.on_main(write)


def _network(request: EvaluationRequest, opened: OpenedRequest) -> ImageNetwork:
    """The run's network, or the exported file that stands for it."""
    names = opened.dataset.classes.names if opened.classes is None else None
    if request.program is None:
        network = load(request.run.model, class_names=names)
        network.require_images(
            opened.dataset.bands, opened.dataset.pixel_type, f"the network of '{request.run.path}'", opened.dataset.name
        )
        return network.to(opened.compute.device, memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]
    program = open_program(request.program, request.device, trusted=request.trust_program)
    require_program_fits(program, opened.protocol, file_sha256(request.run.model), calibration=request.calibration)
    if names is not None and program.class_names != names:
        raise InputError(f"'{request.program}' has other classes than '{opened.dataset.name}'", "export the run again")
    data = opened.dataset
    require_type(program.facts.input, data.pixel_type, f"'{request.program}'", f"'{data.name}'")
    if program.facts.bands != data.bands:
        raise InputError(
            f"'{request.program}' takes images of {program.facts.bands} bands, but those of '{data.name}' have {data.bands}",
            "prepare the dataset with the --bands that the network was trained on",
        )
    return ProgramNetwork(program)


def _extras(request: EvaluationRequest, opened: OpenedRequest) -> Extras:
    names = opened.dataset.classes.names
    benchmark = benchmark_of(names)
    categories = None if benchmark is None else benchmark.of_ids(names)
    images = opened.dataset.names(opened.split)
    instances = bool(images) and opened.dataset.instance(images[0]) is not None
    maps = MapCounter(len(names), request.boundary, categories, benchmark) if request.boundary or instances else None
    save = _saver(opened) if request.save_predictions else None
    raters = _compares_raters(request, opened)
    return Extras(request.calibration or raters, raters, maps, instances, save)


def _compares_raters(request: EvaluationRequest, opened: OpenedRequest) -> bool:
    """Whether probabilities are compared with the label maps of several raters: where the dataset has them, and the network's
    probabilities are those of its classes. An exported file may give no probabilities, so there a person must ask for them."""
    asked = request.calibration or (request.program is None and (opened.classes is None or opened.classes.is_one_to_one))
    return asked and opened.dataset.has_raters(opened.split)


def _saver(opened: OpenedRequest) -> SavePrediction:
    palette, folder = opened.dataset.classes.palette(), opened.folder / "predictions"

    def save(name: str, prediction: LabelMap) -> None:
        """prediction: uint8 (H, W), train ids."""
        write_index(folder / f"{name}.png", prediction, palette)

    return save


def _what_is_counted(request: EvaluationRequest) -> dict[str, Any]:
    """The parts of a request that decide what is counted and written of an image, for the key of partial results."""
    return {
        "batch": request.batch,
        "boundary": request.boundary,
        "calibration": request.calibration,
        "save_predictions": request.save_predictions,
    }


def _about(request: EvaluationRequest, opened: OpenedRequest) -> dict[str, Any]:
    """What scores.json says about the evaluation."""
    dataset, palette = opened.dataset, opened.dataset.classes.palette()
    return {
        "dataset": dataset.name,
        "trial": dataset.trial,
        "split": opened.split,
        "fingerprint": dataset.fingerprint,
        "rule": dataset.provenance.rule,
        **({} if opened.classes is None else _other_dataset(opened.spec, opened.classes)),
        "protocol": protocol_in_words(opened.protocol),
        "precision": opened.compute.precision,
        "program": None if request.program is None else request.program.name,
        "weights": (request.program or request.run.model).name,
        "weights_sha256": file_sha256(request.program or request.run.model),
        "step": _weights_step(request.run),
        "classes": [{"name": name, "color": palette[index].tolist()} for index, name in enumerate(dataset.classes.names)],
    }


def _other_dataset(spec: TrainRun, classes: ClassMap) -> dict[str, Any]:
    """What scores.json says about a dataset that the network was not trained on."""
    return {"trained_on": spec.data.dataset, "class_map": None if classes.is_identity else classes.by_name()}


def _weights_step(run: RunFolder) -> int | None:
    """The step whose weights the run ships, according to the run's log."""
    ends = [event for event in run.read_log() if event["event"] == "end"]
    return ends[-1].get("weights_step") if ends else None
