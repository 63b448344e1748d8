"""A run on Cityscapes gets the benchmark's own scores, from the instance maps that were packed with val."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from toy import PRESET, toy_run

from segctl.cli import main
from segctl.data.datasets import open_source
from segctl.data.datasets.cityscapes_classes import CLASSES
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import open_dataset
from segctl.models import build_model, save

HEIGHT, WIDTH = 32, 64


def draw_frames(root: Path) -> Path:
    """Four frames in the official layout, with two cars and a person each."""
    for index, (split, city) in enumerate((("train", "ulm"), ("train", "bremen"), ("val", "lindau"), ("val", "munster"))):
        random = np.random.default_rng(index)
        ids = random.integers(7, 24, (4, 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
        instances = ids.astype(np.uint16)
        for number, raw in enumerate((26, 26, 24)):
            region = np.s_[20:28, 8 + 16 * number : 14 + 16 * number]
            ids[region], instances[region] = raw, raw * 1000 + number
        start = f"{split}/{city}/{city}_000000_000019"
        for name, array in (
            (f"leftImg8bit/{start}_leftImg8bit.png", random.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)),
            (f"gtFine/{start}_gtFine_labelIds.png", ids),
            (f"gtFine/{start}_gtFine_instanceIds.png", instances),
        ):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(root / name)
    return root


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run with random weights, beside its data and the frames it was packed from."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGCTL_DATA", "data")
    prepare_source(open_source("cityscapes", [draw_frames(tmp_path / "source")]), tmp_path / "data", workers=0)
    spec = toy_run(PRESET, data={"dataset": "cityscapes"})
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.yaml").write_text(yaml.safe_dump(spec.model_dump(mode="json")), encoding="utf-8")
    torch.manual_seed(0)
    save(tmp_path / "run" / "model.safetensors", build_model(spec.model, 19), spec, CLASSES.names)
    return tmp_path / "run"


def test_a_run_and_its_predictions_as_files_get_the_same_benchmark_scores(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "run", "--save-predictions"]) == 0
    capsys.readouterr()
    content = json.loads((run / "eval" / "val" / "scores.json").read_text(encoding="utf-8"))
    assert (run / "eval" / "val" / "instances.npz").is_file()
    assert main(["eval", "--pred", "run/eval/val/predictions", "--gt", "source/gtFine/val", "--num-classes", "19", "--json"]) == 0
    files = json.loads(capsys.readouterr().out)
    for name in ("mIoU_D", "mIoU_K", "mIoU_category", "miIoU", "miIoU_category"):
        assert content[name] is not None
        assert files[name] == content[name], name
    assert files["per_category"] == content["per_category"]
    assert main(["eval", "--counts", "run/eval/val", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == content


def test_a_split_without_instance_maps_has_no_instance_scores(run: Path) -> None:
    assert open_dataset(Path("data"), "cityscapes").instance("ulm_000000_000019") is None
    assert main(["eval", "run", "--split", "train"]) == 0
    content = json.loads((run / "eval" / "train" / "scores.json").read_text(encoding="utf-8"))
    assert "mIoU_category" in content
    assert not {"mIoU_K", "miIoU"} & set(content)
