"""A run on a frozen backbone: it resumes exactly, keeps the licence of its weights, and teaches like any other run."""

import json
from pathlib import Path

import pytest
import torch
from toy import Silent, toy_run

from segctl.cli import main
from segctl.errors import PresetError
from segctl.export.card import model_card
from segctl.models import load, read
from segctl.runs import RunFolder
from segctl.schema.load import load_preset
from segctl.train.build import build_session
from segctl.train.session import Request
from segctl.train.start import start_run

FROZEN = {"backbone": "test_resnet", "head": "linear", "aux": True, "weights": "none", "frozen": True}


@pytest.fixture
def teacher(toy_data: Path, tmp_path: Path) -> Path:
    run = toy_run(model=FROZEN | {"width": None}, train={"steps": 8, "validate_every": 8, "checkpoint_every": 4})
    start_run(Request(run, toy_data, tmp_path), RunFolder(tmp_path / "frozen"), Silent())
    return tmp_path / "frozen"


def test_the_optimiser_holds_only_the_head(toy_data: Path, tmp_path: Path) -> None:
    session = build_session(Request(toy_run(model=FROZEN | {"width": None}), toy_data, tmp_path))
    held = {id(weight) for group in session.state.optimizer.param_groups for weight in group["params"]}
    assert held == {id(weight) for name, weight in session.model.named_parameters() if not name.startswith("backbone.")}
    said = "\n".join(session.decisions())
    learn = sum(weight.numel() for weight in session.model.parameters() if weight.requires_grad)
    assert f"of which {learn:,} learn: the backbone is frozen" in said
    assert "warning: model.frozen keeps the backbone's random weights" in said


def test_a_finished_run_keeps_its_first_backbone(teacher: Path, toy_data: Path, tmp_path: Path) -> None:
    run = RunFolder(teacher).read_run()
    first = build_session(Request(run, toy_data, tmp_path)).model.state_dict()
    last = load(teacher).state_dict()
    for name, tensor in first.items():
        assert torch.equal(tensor, last[name]) == (not name.startswith(("head.", "classifier.", "aux.")))


def test_it_teaches_like_any_other_run(teacher: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environment = json.loads((teacher / "environment.json").read_text()) | {"initial_weights_license": "dinov3-license"}
    (teacher / "environment.json").write_text(json.dumps(environment))
    roots = ["--data-root", str(toy_data), "--runs-root", str(tmp_path)]
    line = ["distill", "--preset", "camvid-tiny-toy.yaml", "--teacher", str(teacher), *roots, "--dry-run", "--device", "cpu"]
    preset = tmp_path / "camvid-tiny-toy.yaml"
    tree = load_preset("camvid-tiny").model_dump(mode="json")
    tree["data"] |= {"crop": [32, 48], "workers": 0}
    tree["model"] |= {"weights": "none"}
    tree["train"] |= {"steps": 2, "batch_size": 2}
    preset.write_text(json.dumps(tree))
    line[2] = str(preset)
    assert main(line) == 0
    said = capsys.readouterr().err
    assert "licence of the teacher's weights: dinov3-license; read its terms before you pass the network on" in said


def test_the_card_says_the_licences(teacher: Path) -> None:
    environment = json.loads((teacher / "environment.json").read_text())
    environment |= {"initial_weights": "timm", "initial_weights_license": "cc-by-nc-4.0"}
    (teacher / "environment.json").write_text(json.dumps(environment))
    card = model_card("me/frozen", RunFolder(teacher), read(teacher), [], [], None)
    assert "- The first weights: cc-by-nc-4.0." in card


def test_what_a_frozen_backbone_cannot_have_is_refused() -> None:
    for change, path in (
        ("train.activation_checkpointing=true", "train.activation_checkpointing"),
        ("optim.layer_decay=0.7", "optim.layer_decay"),
        ("model.width=64", "model.width"),
    ):
        with pytest.raises(PresetError) as caught:
            load_preset("camvid-foundation", [change])
        assert [fault.path for fault in caught.value.faults] == [path]


def test_crops_are_multiples_of_a_patch() -> None:
    # A shipped preset stands for the dataset that it is made for, so the fitted one is looked at under another name.
    from segctl.schema.load import find_preset, read_tree
    from segctl.schema.presets.generic import DatasetFacts, fit_to

    tree = read_tree(find_preset("foundation"))
    reasons = fit_to(
        tree, read_tree(find_preset("foundation")), DatasetFacts("toy", {"train": [(48, 64)] * 9, "val": [(48, 64)]}, 3)
    )
    assert tree["data"]["crop"] == [70, 70]
    assert tree["evaluate"]["protocol"] == {"kind": "sliding", "tile": [70, 70], "stride": 0.6667}
    assert "its sides are multiples of 14, the side of a patch" in " ".join(reasons)


@pytest.mark.slow
def test_a_crop_of_a_few_patches_trains(toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--set", "model.backbone=vit_small_patch14_dinov2", "--set", "model.weights=none", "--set", "train.batch_size=2"]
    roots = ["--data-root", str(toy_data), "--runs-root", str(tmp_path)]
    assert (
        main(["train", "--preset", "foundation", "--data", "camvid", "--set", "data.crop=[28,42]", *small, *roots, "--dry-run"])
        == 0
    )
    assert "the backbone is frozen" in capsys.readouterr().err
