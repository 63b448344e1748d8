"""Steps from epochs, class weights from the labels, and scores by name."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy import PRESET, Silent, toy_run, write_preset

from segctl.cli import main
from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError, PresetError
from segctl.losses.class_weights import balanced_weights
from segctl.runs import RunFolder
from segctl.schema.load import load_preset
from segctl.train.auto.by_dataset import class_weights_of, require_scores
from segctl.train.build import build_session
from segctl.train.resume import resume_run
from segctl.train.session import Request
from segctl.train.start import start_run

WEIGHTED = [{"kind": "cross_entropy", "class_weights": "auto"}, {"kind": "focal", "class_weights": "auto", "weight": 0.5}]


@pytest.mark.parametrize(("epochs", "steps"), [(1, 3), (2, 5), (0.01, 1), (4.2, 11)])
def test_epochs_become_steps_rounded_up(epochs: float, steps: int, toy_data: Path, tmp_path: Path) -> None:
    run = toy_run(train={"steps": None, "epochs": epochs})  # 10 images in batches of 4
    session = build_session(Request(run, toy_data, tmp_path))
    assert (session.run.train.steps, session.run.train.epochs) == (steps, None)


def test_a_run_of_epochs_stores_steps_and_resumes_with_its_preset(toy_data: Path, tmp_path: Path) -> None:
    run = toy_run(train={"steps": None, "epochs": 2, "checkpoint_every": 1})
    folder = start_run(Request(run, toy_data, tmp_path), RunFolder(tmp_path / "run"), Silent())
    assert folder.read_run().train.steps == 5
    folder.model.unlink()
    resume_run(Request(run, toy_data, tmp_path), folder, Silent())
    folder.model.unlink()
    with pytest.raises(InputError, match=r"was started with other settings: train\.steps: 5 -> 8"):
        resume_run(Request(toy_run(train={"steps": None, "epochs": 3}), toy_data, tmp_path), folder, Silent())


def test_steps_and_epochs_replace_each_other_on_the_command_line(tmp_path: Path) -> None:
    preset = str(write_preset(tmp_path / "toy.yaml"))
    train = load_preset(preset, ["train.epochs=3"]).train
    assert (train.steps, train.epochs) == (None, 3)
    train = load_preset(preset, ["train.epochs=3", "train.steps=7"]).train
    assert (train.steps, train.epochs) == (7, None)


def test_a_preset_says_either_steps_or_epochs() -> None:
    with pytest.raises(PresetError, match=r"train\.epochs: got 3 with train\.steps 4, wanted only one of them"):
        toy_run(train={"epochs": 3})
    with pytest.raises(PresetError, match=r"train\.steps: is missing, wanted train\.steps or train\.epochs"):
        toy_run(train={"steps": None})


def test_weights_are_of_the_training_labels(toy_data: Path, tmp_path: Path) -> None:
    run = toy_run(PRESET | {"loss": WEIGHTED})
    dataset = open_dataset(toy_data, "camvid")
    labels = np.concatenate([dataset.label(name).ravel() for name in dataset.names("train")])
    expected = balanced_weights(np.bincount(labels, minlength=256)[: dataset.classes.num_classes].tolist())
    assert class_weights_of(run, dataset) == expected
    session = build_session(Request(run, toy_data, tmp_path))
    for loss in session.task.losses.losses:
        assert loss.class_weights.tolist() == pytest.approx(expected)  # type: ignore[union-attr]
    assert any(line.startswith("class weights, by 1/√frequency in 'train'") for line in session.decisions())
    assert session.run.loss[0].class_weights == "auto"  # type: ignore[union-attr]


def test_weights_want_counted_labels(toy_data: Path) -> None:
    run, dataset = toy_run(), open_dataset(toy_data, "camvid")
    with pytest.raises(InputError, match="prepared by an older segctl, which did not count its pixels; run `segctl data prepare"):
        class_weights_of(run, replace(dataset, label_counts=None))
    assert dataset.label_counts is not None
    blank = replace(dataset.label_counts["train"], classes=(0,) * 11)
    with pytest.raises(InputError, match="no label of split 'train' of 'camvid' shows a class"):
        class_weights_of(run, replace(dataset, label_counts={"train": blank}))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("autp", "loss.0.class_weights: got 'autp', wanted a list"),
        ("[1]", "loss.0.class_weights: got 1 items, wanted at least 2"),
        ("[a, 1]", "loss.0.class_weights.0: got 'a', wanted a number"),
        ("[1, -2]", "loss.0.class_weights.1: got -2, wanted at least 0"),
    ],
)
def test_a_fault_in_class_weights_is_said_once(value: str, message: str, tmp_path: Path) -> None:
    preset = str(write_preset(tmp_path / "toy.yaml"))
    with pytest.raises(PresetError) as error:
        load_preset(preset, [f"loss.0.class_weights={value}"])
    assert len(error.value.faults) == 1
    assert str(error.value.faults[0]).startswith(message)


@pytest.mark.parametrize("path", ["select_by", "early_stop.score"])
def test_a_score_that_is_not_there_is_refused_before_step_1(path: str, toy_data: Path) -> None:
    dataset = open_dataset(toy_data, "camvid")
    for name in ("mIoU_D", "mDice_C_q5", "IoU_D.Car", "Precision_C.Sky"):
        require_scores(_with(path, name), dataset)
    for name, near in (("mIoU_d", "mIoU_D"), ("IoU_D.car", "IoU_D.Car"), ("IoU_D", "mIoU_D"), ("IoU_D.Void", "IoU_D.Road")):
        wanted = re.escape(f"train.{path}: '{name}' is not a score of 'camvid', did you mean '{near}'?")
        with pytest.raises(InputError, match=wanted):
            require_scores(_with(path, name), dataset)


def _with(path: str, name: str):  # type: ignore[no-untyped-def]
    return toy_run(train={"select_by": name} if path == "select_by" else {"early_stop": {"patience": 1, "score": name}})


def test_a_binary_dataset_has_no_score_of_the_background(toy_data: Path) -> None:
    dataset = open_dataset(toy_data, "camvid")
    binary = replace(dataset, classes=replace(dataset.classes, rows=dataset.classes.rows[:2], binary=True))
    require_scores(_with("select_by", f"IoU_D.{binary.classes.names[1]}"), binary)
    with pytest.raises(InputError, match="is not a score of"):
        require_scores(_with("select_by", f"IoU_D.{binary.classes.names[0]}"), binary)


def test_the_command_trains_by_epochs(toy_data: Path, tmp_path: Path) -> None:
    preset, run = write_preset(tmp_path / "toy.yaml"), tmp_path / "run"
    options = ["--preset", str(preset), "--run", str(run), "--data-root", str(toy_data), "--set", "train.epochs=1"]
    assert main(["train", *options]) == 0
    assert [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()][-1] == 3
