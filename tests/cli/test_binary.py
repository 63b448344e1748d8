"""A binary dataset from pictures to the report: two classes, of which the foreground is scored and comes first."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from toy import PRESET, toy_run

from segctl.cli import main

LOSS = [{"kind": "cross_entropy", "class_weights": "auto"}, {"kind": "jdt", "weight": 0.5, "smooth": 1.0}]
TRAIN = {
    "steps": None,
    "epochs": 3,
    "validate_every": 3,
    "select": "best",
    "select_by": "IoU_C.leaf",
    "early_stop": {"patience": 9},
}


def draw_leaves(folder: Path) -> None:
    """Sixteen pictures with one rectangle each, and every fifth with none."""
    random = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for index in range(16):
        label = np.zeros((48, 64), np.uint8)
        if index % 5:
            top, left = random.integers(0, 24), random.integers(0, 32)
            label[top : top + 20, left : left + 24] = 1
        image = np.where(label[..., None] == 1, [200, 60, 60], [60, 120, 90]) + random.integers(-10, 10, (48, 64, 3))
        Image.fromarray(image.astype(np.uint8)).save(folder / "images" / f"{index:02d}.png")
        Image.fromarray(label).save(folder / "labels" / f"{index:02d}.png")
    table = {"binary": True, "classes": [{"name": "background", "id": 0}, {"name": "leaf", "id": 1}]}
    (folder / "classes.yaml").write_text(yaml.safe_dump(table))


@pytest.mark.slow
def test_the_foreground_comes_first_from_training_to_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    draw_leaves(tmp_path)
    data, run = ["--data-root", str(tmp_path / "data")], tmp_path / "run"
    sources = [
        "--images",
        str(tmp_path / "images"),
        "--labels",
        str(tmp_path / "labels"),
        "--classes",
        str(tmp_path / "classes.yaml"),
    ]
    assert main(["data", "prepare", "leaves", *sources, "--split", "val=0.3", *data]) == 0
    tree = {**PRESET, "loss": LOSS, "schedule": {"kind": "one_cycle"}, "optim": {"kind": "timm", "name": "nadamw", "lr": 0.01}}
    spec = toy_run(tree, data={"dataset": "leaves"}, train=TRAIN)
    preset = tmp_path / "leaf.yaml"
    preset.write_text(yaml.safe_dump(spec.model_dump(mode="json") | {"name": "leaf"}))
    capsys.readouterr()
    assert main(["train", "--preset", str(preset), "--run", str(run), *data]) == 0
    said = capsys.readouterr()
    assert "validation after step 3   IoU_D.leaf " in said.out + said.err

    assert main(["eval", str(run), *data]) == 0
    shown = capsys.readouterr().out
    assert shown.index("Foreground, the only class that is scored") < shown.index("mIoU")
    assert "Per class" not in shown
    scores = json.loads((run / "eval" / "val" / "scores.json").read_text())
    (leaf,) = scores["per_class"]
    assert (leaf["class"], leaf["IoU_D"]) == ("leaf", scores["mIoU_D"])
    best = [event for event in map(json.loads, (run / "log.jsonl").read_text().splitlines()) if event["event"] == "validation"]
    assert max(event["scores"]["IoU_C.leaf"] for event in best) == pytest.approx(leaf["IoU_C"])

    assert main(["report", str(run), "-o", str(tmp_path / "report.md")]) == 0
    report = (tmp_path / "report.md").read_text()
    row = next(line for line in report.splitlines() if line.startswith("| run, on leaf"))
    assert [cell.strip() for cell in row.split("|")][2:8] == ["IoU_D", "Dice_D", "Precision_D", "Acc_D", "IoU_C", "Dice_C"]
    assert report.index("run, on leaf") < report.index("mIoU_I_q5")
