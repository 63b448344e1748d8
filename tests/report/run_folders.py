"""Run folders written by hand, exactly as a run and its evaluation leave them."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from segctl.metrics.counts import confusion, count
from segctl.metrics.scores import per_class, score, worst_images
from segctl.metrics.store import save_table
from segctl.metrics.table import CountTable
from segctl.report.collect import read_run
from segctl.report.groups import Group, comparisons_of
from segctl.runs import RunFolder
from segctl.schema.load import apply_override, find_preset, read_tree, validate_run
from segctl.schema.terms.methods import METHODS

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "car")
COLORS = (
    (70, 130, 180),
    (70, 70, 70),
    (153, 153, 153),
    (128, 64, 128),
    (244, 35, 232),
    (107, 142, 35),
    (220, 220, 0),
    (0, 0, 142),
)
IGNORED = 255
SHORT = ("train.steps=800", "data.crop=[240, 320]")


@dataclass(frozen=True)
class Making:
    """What a made run is like; `skill` is the share of pixels it gets right."""

    preset: str = "camvid-psp18-scratch"
    method: str = "none"
    seed: int = 0
    overrides: tuple[str, ...] = ()
    skill: float = 0.7
    split: str | None = "val"
    finished: bool = True
    teacher: dict[str, Any] | None = None
    images: int = 6
    height: int = 60
    width: int = 80
    fingerprint: str = "3f2a9c61d0be5577aa01"
    absent: tuple[str, ...] = ()


def make_run(path: Path, making: Making) -> Path:
    """One run folder."""
    path.mkdir(parents=True)
    tree = read_tree(find_preset(making.preset))
    bundle = METHODS[making.method]
    if bundle is None:
        tree.pop("distiller", None)
        tree.pop("teacher", None)
    else:
        tree["distiller"] = bundle.model_dump(mode="json")
    for override in (f"train.seed={making.seed}", *making.overrides):
        apply_override(tree, override)
    run = validate_run(tree, "made run")
    (path / "run.yaml").write_text(yaml.safe_dump(run.model_dump(mode="json"), sort_keys=False))
    (path / "environment.json").write_text(json.dumps(environment(path, making, run.train.steps)))
    steps = run.train.steps if making.finished else run.train.steps // 3
    write_log(path, making, steps)
    if making.finished:
        (path / "model.safetensors").write_bytes(b"weights")
    if making.split and making.finished:
        evaluate(path, making, run.data.dataset)
    return path


def environment(path: Path, making: Making, steps: int) -> dict[str, Any]:
    return {
        "segctl": "0.1.0",
        "python": "3.12.4",
        "torch": "2.9.1",
        "timm": "1.0.22",
        "platform": "Linux-6.8-x86_64",
        "device": "NVIDIA A100-SXM4-40GB",
        "threads": 8,
        "precision": "bf16",
        "command": f"segctl distill --preset {making.preset} --method {making.method} --seed {making.seed} --run {path}",
        "caller_commit": "0d5a1f6c9b3e4d7f8a2b1c0e9d8f7a6b5c4d3e2f",
        "started": "2026-03-01T10:00:00Z",
        "finished": "2026-03-01T10:16:12Z" if making.finished else None,
        "seconds": 972.0,
        "steps": steps,
        "seconds_per_step": 0.12134 if making.finished else None,
        "parameters": 12_788_950,
        "cost": {"parameters": 12_640_235, "gflop": 71.49, "size": [360, 480]},
        "method": making.method,
        "initial_weights": "none",
        "dataset": {"name": "camvid", "fingerprint": making.fingerprint},
        "teacher": making.teacher,
    }


TEACHER = {
    "run": "runs/camvid-dl101-scratch",
    "preset": "camvid-dl101-scratch",
    "sha256": "9b1f0c5d7e3a2648aa",
    "scores": {"mIoU_D": 52.31, "mIoU_I": 50.2},
    "images": 32,
}

ENSEMBLE = {
    "run": "runs/a + runs/b",
    "preset": "a + b",
    "sha256": "77aa0c5d7e3a2648ff",
    "scores": {"mIoU_D": 54.0},
    "images": 32,
    "members": [
        {"run": "runs/a", "preset": "a", "sha256": "11" * 9, "scores": {"mIoU_D": 52.0}, "images": 32, "weight": 1.0},
        {"run": "runs/b", "preset": "b", "sha256": "22" * 9, "scores": {"mIoU_D": 53.0}, "images": 32, "weight": 2.5},
    ],
}


def write_log(path: Path, making: Making, steps: int) -> None:
    rng = np.random.default_rng(making.seed)
    events: list[dict[str, Any]] = []
    for step in range(steps // 100, steps + 1, max(1, steps // 100)):
        loss = float(0.4 + 1.6 * np.exp(-4 * step / steps) + 0.1 * rng.standard_normal())
        events.append({"event": "step", "step": step, "loss": loss, "terms": {"cross_entropy_main": loss}, "lr": 0.01})
        if step % (steps // 10) == 0:
            value = float(100 * making.skill * (1 - np.exp(-3 * step / steps)))
            events.append({"event": "validation", "step": step, "scores": {"mIoU_D": value}})
    if making.finished:
        events.append({"event": "end", "step": steps, "weights_of": f"step {steps}"})
    (path / "log.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))


def evaluate(path: Path, making: Making, dataset: str) -> None:
    """Score a street of rectangles, predicted with some blocks wrong, and write eval/<split>/."""
    assert making.split is not None
    folder = path / "eval" / making.split
    (folder / "worst").mkdir(parents=True)
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(CLASSES)] = COLORS
    scenes = [scene(index, making) for index in range(making.images)]
    labels = np.stack([label for label, _ in scenes])
    predictions = np.stack([prediction for _, prediction in scenes])
    names = tuple(f"seq{index // 4:02d}/frame_{index:05d}" for index in range(making.images))
    table = CountTable(names, CLASSES, count(predictions, labels, len(CLASSES)))
    save_table(folder / "counts.npz", table)
    np.savez(folder / "confusion.npz", matrix=confusion(predictions, labels, len(CLASSES)), class_names=np.array(CLASSES))
    about = {
        "dataset": dataset,
        "split": making.split,
        "fingerprint": making.fingerprint,
        "images": making.images,
        "protocol": "whole image, single scale, no flip",
        "weights": "model.safetensors",
        "step": 100,
        "binary": False,
        "ignored_images": table.ignored_images,
        "outside_predictions": table.outside_predictions,
        "classes": [{"name": name, "color": list(color)} for name, color in zip(CLASSES, COLORS, strict=True)],
    }
    content = {**score(table), "per_class": per_class(table), "about": about}
    (folder / "scores.json").write_text(json.dumps(content))
    entries = []
    for rank, worst in enumerate(worst_images(table, 4)):
        label, prediction = scenes[names.index(worst.image)]
        image = (0.6 * palette[label] + 40 * np.random.default_rng(rank).random((*label.shape, 1))).astype(np.uint8)
        error = np.where((prediction != label)[..., None], np.array([215, 35, 35], np.uint8), np.uint8(190))
        error[label == IGNORED] = 0
        tiles = {"image": image, "truth": palette[label], "prediction": palette[prediction], "error": error.astype(np.uint8)}
        stem = f"{rank:02d}_{worst.image.replace('/', '_')}"
        files = {kind: f"{stem}_{kind}.png" for kind in tiles}
        for kind, tile in tiles.items():
            Image.fromarray(tile).save(folder / "worst" / files[kind])
        entries.append({"image": worst.image, "mIoU_I": worst.miou_i, "files": files})
    (folder / "worst" / "worst.json").write_text(json.dumps(entries))


def scene(index: int, making: Making) -> tuple[np.ndarray, np.ndarray]:
    """Label and prediction, uint8 (H, W); the label does not depend on the run."""
    height, width = making.height, making.width
    rng = np.random.default_rng(index)
    label = np.full((height, width), 3, np.uint8)
    label[: height // 2] = 0
    label[height // 4 : height // 2, : width // 3] = 1
    label[height // 3 : height // 2, 2 * width // 3 :] = 5
    label[height // 2 : height // 2 + 6, :] = 4
    for kind, size in ((7, height // 6), (6, height // 15), (2, height // 12)):
        if CLASSES[kind] not in making.absent and (kind != 6 or index % 2):
            top, left = rng.integers(height // 4, height - size), rng.integers(0, width - size)
            label[top : top + size, left : left + (size // 3 if kind == 2 else size)] = kind
    label[-3:] = IGNORED
    noise = np.random.default_rng((index, making.seed, round(1000 * making.skill)))
    wrong = noise.random((height // 5 + 1, width // 5 + 1)) > making.skill
    wrong = wrong.repeat(5, 0).repeat(5, 1)[:height, :width]
    known = [kind for kind, name in enumerate(CLASSES) if name not in making.absent]
    guess = noise.choice(known, (height // 5 + 1, width // 5 + 1)).repeat(5, 0).repeat(5, 1)[:height, :width]
    prediction = np.where(wrong, guess, np.where(label == IGNORED, 3, label)).astype(np.uint8)
    return label, prediction


def group_of(tmp_path: Path, scores: dict[str, list[float]], overrides: tuple[str, ...] = ()) -> list[Group]:
    """Groups by method, one run for each score, which becomes its mIoU_D; seeds count from 0."""
    runs = []
    for method, values in scores.items():
        for seed, value in enumerate(values):
            teacher = None if method == "none" else TEACHER
            making = Making(method=method, seed=seed, overrides=(*SHORT, *overrides), teacher=teacher, images=2)
            path = make_run(tmp_path / f"{method}{seed}{len(overrides)}", making)
            put(path / "eval" / "val" / "scores.json", mIoU_D=value)
            put(path / "environment.json", seconds_per_step=0.1 if method == "none" else 0.3, peak_memory_mb=1234.6)
            runs.append(read_run(RunFolder(path)))
    return list(comparisons_of(runs)[0].groups)


def put(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
