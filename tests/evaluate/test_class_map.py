"""A network scored on a dataset that it was not trained on: its classes by name, by a file, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segctl.cli import main
from segctl.data.datasets.own.given import OwnFiles
from segctl.data.datasets.own.open import open_own
from segctl.data.prepare import prepare_source
from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError
from segctl.evaluate.class_map import UNMAPPED, map_classes
from segctl.metrics.counts import count
from segctl.metrics.scores import score
from segctl.metrics.table import CountTable


def test_classes_are_the_same_by_name() -> None:
    found = map_classes(["Traffic Light", "road", "wall"], ["road", "traffic-light"], None, "night")
    assert found.ids == (1, 0, UNMAPPED)
    assert found.of_predictions(torch.tensor([[[0, 1, 2]]], dtype=torch.uint8)).tolist() == [[[1, 0, 255]]]
    assert found.warnings() == ["predictions of wall count as misses: the dataset has no such class"]
    assert not found.is_one_to_one


def test_probabilities_follow_a_permutation() -> None:
    found = map_classes(["a", "b", "c"], ["c", "a", "b"], None, "other")
    assert found.ids == (1, 2, 0)
    probabilities = torch.tensor([0.1, 0.2, 0.7]).view(1, 3, 1, 1)
    assert found.of_probabilities(probabilities).flatten().tolist() == pytest.approx([0.7, 0.1, 0.2])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("car: car\ntruck: lorry\nsky: null\n", "'other' has no class 'lorry'"),
        ("car: car\nsky: null\n", "says nothing about the network's truck"),
        ("car: car\ntruck: car\nsky: null\ntree: car\n", "the network has no class 'tree'"),
        ("- car\n", "holds list, wanted a mapping"),
        ("car: [car]\ntruck: car\nsky: null\n", "'other' has no class '['car']'"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(text: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "map.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        map_classes(["car", "truck", "sky"], ["car"], tmp_path / "map.yaml", "other")
    assert problem in error.value.message


def write_other(toy_data: Path, root: Path, names: list[str], ids: list[int]) -> Path:
    """A dataset `other` of the toy's validation images; class k of the toy has the id ids[k] there, 255 for none."""
    camvid = open_dataset(toy_data, "camvid")
    table = np.full(256, 255, np.uint8)
    table[: len(ids)] = ids
    for name in camvid.names("val"):
        for folder, picture in (("images", camvid.image(name)), ("labels", table[camvid.label(name)])):
            (root / folder / "val").mkdir(parents=True, exist_ok=True)
            Image.fromarray(picture).save(root / folder / "val" / f"{name}.png")
    (root / "classes.txt").write_text("\n".join(names) + "\n")
    data = root / "data"
    shutil.copytree(toy_data, data)
    own = OwnFiles(root / "images", root / "labels", root / "classes.txt")
    prepare_source(open_own("other", own), data, workers=0)
    return data


@pytest.fixture
def run(toy_teacher: Path, tmp_path: Path) -> Path:
    shutil.copytree(toy_teacher, tmp_path / "run", ignore=shutil.ignore_patterns("eval"))
    return tmp_path / "run"


def evaluated(run: Path, data: Path, capsys: pytest.CaptureFixture[str], *options: str) -> dict:
    assert main(["eval", str(run), "--data-root", str(data), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_same_classes_in_another_order_give_the_same_scores(
    run: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = open_dataset(toy_data, "camvid").classes.names
    order = list(np.random.default_rng(0).permutation(len(names)))
    data = write_other(toy_data, tmp_path, [names[order.index(k)] for k in range(len(names))], order)
    mine = evaluated(run, data, capsys, "--calibration")
    other = evaluated(run, data, capsys, "--dataset", "other", "--calibration")
    for name in ("Acc", "mIoU_D", "mIoU_I", "mIoU_C", "mIoU_C_q5", "mDice_D", "ECE_D", "SCE_D"):
        assert other[name] == pytest.approx(mine[name], abs=1e-9)
    assert {row["class"]: row["IoU_D"] for row in other["per_class"]} == {row["class"]: row["IoU_D"] for row in mine["per_class"]}
    assert (other["about"]["dataset"], other["about"]["trained_on"], other["about"]["split"]) == ("other", "camvid", "val")
    assert other["about"]["class_map"] == {name: name for name in names}
    assert other["about"]["rule"].startswith("own/1 ")
    assert "trained_on" not in mine["about"]
    assert (run / "eval" / "val@other" / "scores.json").is_file()


def test_classes_mapped_by_a_file_are_counted_as_by_hand(
    run: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three of the toy's classes become `thing`, two `ground`, and the others none."""
    camvid = open_dataset(toy_data, "camvid")
    names, ids = camvid.classes.names, [0, 0, 255, 1, 1, 1, *[255] * 5]
    data = write_other(toy_data, tmp_path, ["ground", "thing"], ids)
    targets = {0: "ground", 1: "thing", 255: None}
    (tmp_path / "map.yaml").write_text(yaml.safe_dump({name: targets[k] for name, k in zip(names, ids, strict=True)}))
    evaluated(run, data, capsys, "--save-predictions")
    found = evaluated(run, data, capsys, "--dataset", "other", "--class-map", str(tmp_path / "map.yaml"))

    table = np.full(256, 255, np.uint8)
    table[: len(ids)] = ids
    images = camvid.names("val")
    guesses = [table[np.array(Image.open(run / "eval" / "val" / "predictions" / f"{name}.png"))] for name in images]
    truths = [table[camvid.label(name)] for name in images]
    wanted = score(CountTable(tuple(images), ("ground", "thing"), count(np.stack(guesses), np.stack(truths), 2)))
    assert {name: found[name] for name in wanted} == pytest.approx(wanted)
    assert found["about"]["outside_predictions"] > 0


def test_what_cannot_be_scored_is_refused(run: Path, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_other(toy_data, tmp_path, ["ground", "thing"], [0, 0, 255, 1, 1, 1, *[255] * 5])
    command = ["eval", str(run), "--data-root", str(data)]

    def refused(*options: str) -> str:
        assert main([*command, *options]) == 2
        return capsys.readouterr().err

    assert "the network knows no class called ground, thing, which 'other' has" in refused("--dataset", "other")
    assert "--class-map is for another dataset" in refused("--class-map", "map.yaml")
    assert "no split called 'test'" in refused("--dataset", "other", "--split", "test")
    names = open_dataset(toy_data, "camvid").classes.names
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(dict.fromkeys(names, "thing")))
    mapped = ("--dataset", "other", "--class-map", str(tmp_path / "map.yaml"))
    assert "--calibration needs the probability of each class" in refused(*mapped, "--calibration")
    assert main([*command, *mapped]) == 0
    assert "the network never predicts ground, so their IoU is 0" in capsys.readouterr().err
