"""Score a trained run on a split and leave the tables and the worst images in its folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from segctl.data.classes import IGNORED
from segctl.data.packed import PackedDataset, open_dataset
from segctl.engine.device import choose_scoring_compute, loader_workers
from segctl.engine.distributed import World
from segctl.engine.evaluate import Counted, Progress, Scoring, count_split, predict
from segctl.errors import InputError
from segctl.files import write_whole
from segctl.metrics.scores import PER_CLASS_COLUMNS, ImageScore, per_class, per_image, score, worst_images
from segctl.models import Segmenter, load
from segctl.runs import RunFolder, write_csv, write_json
from segctl.schema.evaluate import EvaluateSpec, SlidingProtocol
from segctl.schema.run import TrainRun

WORST = 8


@dataclass(frozen=True)
class Evaluation:
    """A run scored on a split."""

    folder: Path
    counted: Counted
    content: dict[str, Any]
    worst: list[ImageScore]


@dataclass(frozen=True)
class EvaluationRequest:
    """Which run, on which split of which data root, and where to compute."""

    run: RunFolder
    data_root: Path
    split: str | None = None
    device: str | None = None


def open_request(request: EvaluationRequest) -> tuple[TrainRun, PackedDataset, str]:
    """The run's description, its dataset and the split to score. Raises InputError where one of them is not there."""
    spec = request.run.read_run()
    if not request.run.finished:
        raise InputError(
            f"the run '{request.run.path}' has not finished: it holds no model.pt",
            f"finish it with `segctl train --resume --run {request.run.path}`",
        )
    dataset = open_dataset(request.data_root, spec.data.dataset)
    split = request.split or spec.data.val_split
    dataset.names(split)
    choose_scoring_compute(request.device, spec.train.precision)
    return spec, dataset, split


def evaluate_run(request: EvaluationRequest, world: World, progress: Progress | None = None) -> Evaluation | None:
    """Score a finished run's model.pt under its own protocol; only the main process writes files and gets the result."""
    spec, dataset, split = open_request(request)
    compute = choose_scoring_compute(request.device, spec.train.precision)
    model = load(request.run.model, class_names=dataset.classes.names).to(compute.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    how = Scoring(spec.evaluate, compute, loader_workers(spec.data.workers, compute.device, world.size), world)
    counted = count_split(model, dataset, split, how, progress if world.is_main else None)
    if not world.is_main:
        return None
    worst = worst_images(counted.table, WORST, binary=dataset.classes.binary)
    evaluation = Evaluation(request.run.evaluation(split), counted, _content(request.run, dataset, split, counted, how), worst)
    _write_tables(evaluation, dataset)
    _write_worst(evaluation, model, dataset, how)
    return evaluation


def protocol_in_words(spec: EvaluateSpec) -> str:
    """`whole image, 1 scale`, or `sliding 512×1024 tiles every 2/3, scales 0.75, 1, flipped too`."""
    match spec.protocol:
        case SlidingProtocol(tile=(height, width), stride=stride):
            place = f"sliding {height}×{width} tiles, stride {stride:.4g} of a tile"
        case _:
            place = "whole image"
    scales = "single scale" if spec.scales == (1.0,) else "scales " + ", ".join(f"{scale:g}" for scale in spec.scales)
    return f"{place}, {scales}, {'with' if spec.flip else 'no'} flip"


def _content(run: RunFolder, dataset: PackedDataset, split: str, counted: Counted, how: Scoring) -> dict[str, Any]:
    table, binary = counted.table, dataset.classes.binary
    palette = dataset.classes.palette()
    return {
        **score(table, binary=binary),
        "per_class": per_class(table, binary=binary),
        "about": {
            "dataset": dataset.name,
            "split": split,
            "fingerprint": dataset.fingerprint,
            "images": len(table.names),
            "protocol": protocol_in_words(how.protocol),
            "precision": how.compute.precision,
            "weights": "model.pt",
            "step": _weights_step(run),
            "binary": binary,
            "ignored_images": table.ignored_images,
            "outside_predictions": table.outside_predictions,
            "classes": [{"name": name, "color": palette[index].tolist()} for index, name in enumerate(dataset.classes.names)],
        },
    }


def _weights_step(run: RunFolder) -> int | None:
    """The step whose weights model.pt holds, as the run's log says."""
    ends = [event for event in run.read_log() if event["event"] == "end"]
    return ends[-1].get("weights_step") if ends else None


def _write_tables(evaluation: Evaluation, dataset: PackedDataset) -> None:
    folder, table, binary = evaluation.folder, evaluation.counted.table, dataset.classes.binary
    images = per_image(table, binary=binary)
    write_csv(folder / "per_image.csv", list(images[0]), [list(row.values()) for row in images])
    classes = evaluation.content["per_class"]
    write_csv(folder / "per_class.csv", PER_CLASS_COLUMNS, [[row[column] for column in PER_CLASS_COLUMNS] for row in classes])
    write_whole(folder / "counts.npz", table.save)
    write_whole(folder / "confusion.npz", lambda partial: _save_matrix(partial, evaluation.counted.confusion, table.class_names))
    write_json(folder / "scores.json", evaluation.content)


def _save_matrix(path: Path, matrix: NDArray[np.int64], class_names: Sequence[str]) -> None:
    with path.open("wb") as handle:
        np.savez(handle, matrix=matrix, class_names=np.array(class_names, dtype=np.str_))


def _write_worst(evaluation: Evaluation, model: Segmenter, dataset: PackedDataset, how: Scoring) -> None:
    """Four PNGs for each of the worst images: image, truth, prediction in class colours, and where they differ."""
    folder, entries = evaluation.folder / "worst", []
    for old in folder.glob("*.png"):
        old.unlink()
    model.eval()
    for rank, worst in enumerate(evaluation.worst):
        image, label = dataset.image(worst.image), dataset.label(worst.image)
        tiles = _tiles(image, label, _predict_one(model, image, how), dataset.classes.palette())
        stem = f"{rank:02d}_{worst.image.replace('/', '_')}"
        files = {kind: f"{stem}_{kind}.png" for kind in tiles}
        for kind, tile in tiles.items():
            _write_png(folder / files[kind], tile)
        entries.append({"image": worst.image, "mIoU_I": worst.miou_i, "files": files})
    write_json(folder / "worst.json", entries)


def _write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    write_whole(path, lambda partial: Image.fromarray(picture).save(partial, format="PNG"))


def _predict_one(model: Segmenter, image: NDArray[np.uint8], how: Scoring) -> NDArray[np.uint8]:
    batch = torch.from_numpy(np.ascontiguousarray(image))[None].to(how.compute.device)
    found: NDArray[np.uint8] = predict(model, batch, how.protocol, how.compute)[0].cpu().numpy()
    return found


def _tiles(
    image: NDArray[np.uint8], label: NDArray[np.uint8], prediction: NDArray[np.uint8], palette: NDArray[np.uint8]
) -> dict[str, NDArray[np.uint8]]:
    """RGB uint8 (H, W, 3) each. Error: red where wrong, the image in faint grey where right, black where ignored."""
    grey = (image.mean(-1, keepdims=True) * 0.35 + 160).repeat(3, -1).astype(np.uint8)
    error = np.where((prediction != label)[..., None], np.array([215, 35, 35], np.uint8), grey)
    error[label == IGNORED] = 0
    return {"image": image, "truth": palette[label], "prediction": palette[prediction], "error": error}
