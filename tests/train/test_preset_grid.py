"""Every preset of the published table takes a step on tiny files in the official layouts."""

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from toy import Silent, toy_run

from segctl.data.datasets import open_source
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import open_dataset
from segctl.models import build_model, save
from segctl.schema.load import load_preset, preset_names, with_method
from segctl.schema.run import DistillRun, TrainRun
from segctl.schema.terms.methods import METHODS, Method
from segctl.train.dry_run import dry_run
from segctl.train.session import Request
from tests.data import cityscapes_files, voc_files

GRID = [name for name in preset_names() if name.startswith(("cityscapes-", "voc-"))]
CROP = "[64,64]"


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a handful of pictures of either dataset, and a small random teacher beside each."""
    root = tmp_path_factory.mktemp("official")
    trees = {"cityscapes": cityscapes_files.images() | cityscapes_files.labels(), "voc": voc_files.voc() | voc_files.aug()}
    trees["voc-sbd-wins"] = trees["voc"]
    for name, tree in trees.items():
        write(root / "source" / name, tree)
        prepare_source(open_source(name, [root / "source" / name]), root / "data", workers=0)
        teacher = toy_run()
        class_names = open_dataset(root / "data", name).classes.names
        torch.manual_seed(0)
        save(root / f"{name}.pt", build_model(teacher.model, len(class_names)), teacher, class_names)
    return root


def write(folder: Path, tree: Mapping[str, bytes]) -> None:
    for name, content in tree.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def small(name: str) -> TrainRun:
    """The preset with crop and batch small, without the download of weights."""
    changes = [f"data.crop={CROP}", "data.workers=0", "train.batch_size=2", "model.weights=none"]
    sliding = load_preset(name).evaluate.protocol.kind == "sliding"
    return load_preset(name, [*changes, f"evaluate.protocol.tile={CROP}"] if sliding else changes)


def try_it(run: TrainRun, official: Path, tmp_path: Path) -> dict[str, float]:
    teacher = official / f"{run.data.dataset}.pt" if isinstance(run, DistillRun) else None
    found = dry_run(Request(run, official / "data", tmp_path, teacher=teacher, device="cpu"), Silent())
    assert list(tmp_path.iterdir()) == []
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", GRID)
def test_a_dry_run_of_the_preset_takes_a_step(name: str, official: Path, tmp_path: Path) -> None:
    assert try_it(small(name), official, tmp_path)["loss"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["voc-psp18-cirkd", "cityscapes-dlmb2-dist"])
def test_every_method_takes_a_step_in_any_recipe(name: str, method: Method, official: Path, tmp_path: Path) -> None:
    run = small(name)
    assert isinstance(run, DistillRun)
    if method == "jml" and not run.model.aux:
        pytest.skip("jml compares auxiliary logits, and this student has none")
    assert try_it(with_method(run, method), official, tmp_path)["loss"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["voc-psp18-cirkd", "cityscapes-psp18-dist"])
def test_one_preset_of_each_new_recipe_takes_a_step(name: str, official: Path, tmp_path: Path) -> None:
    assert try_it(small(name), official, tmp_path)["loss"] > 0


def test_the_grid_is_the_published_table() -> None:
    students = {"cityscapes": ("dl18", "dlmb2", "psp18"), "voc": ("dl18", "psp18")}
    wanted = {
        f"{dataset}-{model}{suffix}" for dataset, models in students.items() for model in models for suffix in ("", "-cirkd")
    }
    wanted |= {f"cityscapes-{model}-dist" for model in students["cityscapes"]}
    wanted |= {f"{dataset}-dl101{suffix}" for dataset in students for suffix in ("", "-cirkd")}
    wanted |= {f"cityscapes-dlp101-{loss}" for loss in ("jaccard-ic", "dice-d", "dice-ic")}
    wanted |= {f"{dataset}-{size}" for dataset in students for size in ("fast", "tiny", "foundation")}
    assert set(GRID) == wanted
