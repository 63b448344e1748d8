"""A toy dataset in CamVid's layout, a toy network, and a toy preset: everything small enough for a test on one core."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from segctl.data.datasets import open_source
from segctl.data.prepare import prepare_source
from segctl.models import Prediction
from segctl.schema.load import validate_run
from segctl.schema.run import TrainRun

CLASSES = 11
HEIGHT, WIDTH = 48, 64


def draw_camvid(folder: Path, train: int = 10, val: int = 5) -> Path:
    """A folder in the published layout: one coloured rectangle on a ground, whose class the colour tells; a void stripe."""
    random = np.random.default_rng(0)
    for split, count in (("train", train), ("val", val)):
        images, labels = folder / split, folder / f"{split}annot"
        images.mkdir(parents=True)
        labels.mkdir()
        for index in range(count):
            image, label = _draw(random)
            name = f"{'0001TP' if split == 'train' else '0016E5'}_{index:05d}.png"
            Image.fromarray(image).save(images / name)
            Image.fromarray(label).save(labels / name)
    return folder


def _draw(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    ground, thing = int(random.integers(0, 3)), int(random.integers(3, CLASSES))
    label = np.full((HEIGHT, WIDTH), ground, np.uint8)
    top, left = int(random.integers(0, HEIGHT - 24)), int(random.integers(0, WIDTH - 32))
    label[top : top + 24, left : left + 32] = thing
    colors = np.array([[60 + 17 * c, 250 - 20 * c, (90 * c) % 256] for c in range(CLASSES)], np.uint8)
    image = colors[label]
    label[:, :2] = 11
    noise = random.integers(-8, 9, image.shape)
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8), label


def pack_camvid(root: Path) -> Path:
    """A data root that holds the toy as `camvid`."""
    prepare_source(open_source("camvid", [draw_camvid(root / "source")]), root / "data", workers=0)
    return root / "data"


PRESET: dict[str, Any] = {
    "name": "toy",
    "recipe": "scratch",
    "data": {"dataset": "camvid", "crop": [32, 48], "scale": [0.75, 1.25], "workers": 0},
    "model": {"backbone": "test_resnet", "head": "pspnet", "width": 8, "weights": "none"},
    "loss": [
        {"kind": "cross_entropy", "logits": "main", "weight": 0.5},
        {"kind": "cross_entropy", "logits": "aux", "weight": 0.5},
        {"kind": "jdt", "logits": "main", "weight": 0.5, "smooth": 1.0},
    ],
    "optim": {"kind": "sgd", "lr": 0.05, "weight_decay": 1e-4},
    "train": {"steps": 4, "batch_size": 4, "precision": "fp32", "validate_every": 4, "checkpoint_every": 2},
}

STUDENT: dict[str, Any] = PRESET | {
    "name": "toy-student",
    "distiller": {
        "label_weight": 0.5,
        "terms": [{"kind": "kd"}, {"kind": "soft_kl", "logits": "aux"}, {"kind": "soft_jdt", "smooth": 1.0}],
    },
    "teacher": {"preset": "toy"},
}


def toy_run(tree: dict[str, Any] = PRESET, **blocks: dict[str, Any]) -> TrainRun:
    """The toy's run, some blocks changed: `toy_run(train={"steps": 3})`."""
    changed = {name: {**tree[name], **block} if name in tree else block for name, block in blocks.items()}
    return validate_run(tree | changed, "toy")


def write_preset(path: Path, tree: dict[str, Any] = PRESET, **blocks: dict[str, Any]) -> Path:
    """The same as a YAML file."""
    path.write_text(yaml.safe_dump(toy_run(tree, **blocks).model_dump(mode="json")), encoding="utf-8")
    return path


class TwoLayers(nn.Module):
    """A segmenter without batch norm or dropout, so that parts of a batch do not see each other."""

    def __init__(self, classes: int = CLASSES, stride: int = 4) -> None:
        super().__init__()
        self.num_classes, self.class_names = classes, [f"class {index}" for index in range(classes)]
        self.backbone = nn.Conv2d(3, 6, 3, stride=stride, padding=1)
        self.classifier = nn.Conv2d(6, classes, 1)
        self.aux = nn.Conv2d(6, classes, 1)

    def normalize(self, images: Tensor) -> Tensor:
        return images.permute(0, 3, 1, 2).to(self.classifier.weight.dtype) / 255

    def forward(self, images: Tensor) -> Prediction:
        features = torch.tanh(self.backbone(images))
        return Prediction(self.classifier(features), self.aux(features), features)


class Silent:
    """A watcher that keeps what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.tables: list[tuple[str, list[list[str]], list[str]]] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def stepped(self, report: object, steps: int) -> None:
        pass

    def advance(self, label: str, done: int, total: int) -> None:
        pass

    def table(self, title: str, columns: object, rows: list[list[str]], notes: list[str]) -> None:
        self.tables.append((title, rows, notes))
