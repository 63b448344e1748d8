"""The dataset of pseudo labels: a person's labels of some training pictures, the teacher's predictions of the others.

The commands are those of docs/unlabelled.md; the validation split keeps its own labels.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
from plan import PseudoPlan

from segctl.data.batches.views import names_without_label
from segctl.data.shards.dataset import find_dataset, open_dataset
from segctl.runs import RunFolder


def prepare(plan: PseudoPlan, teacher: RunFolder, data_root: Path, segctl: Callable[..., Any]) -> None:
    """Prepare it below the data root, unless it is there. segctl: runs one of its commands."""
    if find_dataset(data_root, plan.name) is not None:
        return
    spec = teacher.read_run().data
    dataset = open_dataset(data_root, spec.dataset)
    hidden = names_without_label(dataset, spec.train_split, plan.labelled)
    with tempfile.TemporaryDirectory() as place:
        images, unlabelled, predicted = (Path(place) / name for name in ("images", "unlabelled", "predicted"))
        images.mkdir()
        unlabelled.mkdir()
        lists = {"train": dataset.names(spec.train_split), "val": dataset.names(spec.val_split)}
        for name in {*lists["train"], *lists["val"]}:
            cv2.imwrite(str(images / f"{name}.png"), cv2.cvtColor(dataset.image(name), cv2.COLOR_RGB2BGR))
            if name in hidden:
                (unlabelled / f"{name}.png").hardlink_to(images / f"{name}.png")
        segctl("predict", teacher.path, unlabelled, "-o", predicted, "--confidence")
        for name in {*lists["train"], *lists["val"]} - hidden:
            cv2.imwrite(str(predicted / f"{name}.png"), dataset.label(name))  # train ids, as the predictions
        splits = []
        for split, names in lists.items():
            file = Path(place) / f"{split}.txt"
            file.write_text("".join(f"{name}.png\n" for name in names), encoding="utf-8")
            splits += ["--split", f"{split}={file}"]
        segctl(
            "data", "prepare", plan.name, "--images", images, "--labels", predicted, *splits,
            "--min-confidence", plan.min_confidence, "--data-root", data_root,
        )  # fmt: skip
