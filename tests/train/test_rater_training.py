"""Training on the mean of several raters, and scoring against all of them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toy import PRESET, TwoLayers, toy_run, write_preset

from segctl.cli import main
from segctl.data.batches.ratings import Ratings
from segctl.errors import PresetError
from segctl.losses.soft_labels import average_raters
from segctl.metrics.store import load_counts
from segctl.schema.labels import HardLabels, RaterLabels
from segctl.schema.terms.loss_terms import CrossEntropySpec, JDTSpec
from segctl.train.tasks import Extra, SupervisedTask

SPECS = [CrossEntropySpec(), JDTSpec(smooth=1.0)]


def task(labels: HardLabels | RaterLabels) -> SupervisedTask:
    torch.manual_seed(0)
    return SupervisedTask(TwoLayers(), labels, SPECS)


def test_the_loss_is_that_of_the_mean_by_hand() -> None:
    """Cross-entropy is linear in the label: 3/4 of one rater's loss and 1/4 of the other's."""
    torch.manual_seed(1)
    images, maps = (
        torch.randint(0, 256, (2, 16, 20, 3), dtype=torch.uint8),
        torch.randint(0, 11, (2, 2, 16, 20), dtype=torch.uint8),
    )
    weights = torch.tensor([[0.9, 0.3], [0.6, 0.2]])
    apart = [task(HardLabels())(images, maps[:, rater]).terms["cross_entropy_main"] for rater in (0, 1)]
    for mean, shares in (("weighted", (0.75, 0.25)), ("uniform", (0.5, 0.5))):
        found = task(RaterLabels(mean=mean))(images, maps[:, 0], extra=Extra(ratings=Ratings(maps, weights)))
        wanted = sum(share * loss for share, loss in zip(shares, apart, strict=True))
        torch.testing.assert_close(found.terms["cross_entropy_main"], wanted)


def test_raters_who_agree_are_a_hard_label() -> None:
    images, label = torch.randint(0, 256, (2, 16, 20, 3), dtype=torch.uint8), torch.randint(0, 11, (2, 16, 20), dtype=torch.uint8)
    label[:, :3] = 255
    hard = task(HardLabels())(images, label).loss
    ratings = Ratings(torch.stack([label] * 3, 1), torch.tensor([[1.0, 0.2, 0.0]] * 2))
    torch.testing.assert_close(task(RaterLabels())(images, label, extra=Extra(ratings=ratings)).loss, hard)
    torch.testing.assert_close(task(RaterLabels())(images, label).loss, hard)


def test_weights_of_0_count_alike_where_no_other_rater_answered() -> None:
    maps, weights = torch.tensor([[[0, 255, 1]], [[1, 1, 255]], [[1, 0, 255]]]).permute(1, 0, 2), torch.tensor([[1.0, 0.0, 0.0]])
    soft, keep = average_raters(maps, 2, weights=weights)
    assert soft[0].T.tolist() == [[1, 0], [0.5, 0.5], [0, 1]]
    assert keep.all()


def test_copy_paste_does_not_go_with_raters() -> None:
    with pytest.raises(PresetError, match=r"data.augment.0.kind: got 'copy_paste' with labels.kind 'raters'"):
        toy_run(labels={"kind": "raters"}, data={"augment": [{"kind": "copy_paste"}]})


@pytest.mark.slow
def test_from_several_folders_to_bdice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for index in range(12):
        label = np.zeros((48, 64), np.uint8)
        label[8:40, 8 + index : 40] = 1
        image = np.where(label[..., None] == 1, 200, 40) + random.integers(-9, 10, (48, 64, 3))
        for folder, array in (("images", image.astype(np.uint8)), *((f"rater{r}", np.roll(label, r, 1)) for r in range(3))):
            Path(folder).mkdir(exist_ok=True)
            Image.fromarray(array).save(f"{folder}/{index:02d}.png")
    Path("classes.yaml").write_text("binary: true\nclasses:\n- {name: sane, id: 0}\n- {name: ill, id: 1}\n")
    labels = [word for r in range(3) for word in ("--labels", f"rater{r}")]
    assert (
        main(["data", "prepare", "mine", "--images", "images", *labels, "--classes", "classes.yaml", "--split", "val=0.25"]) == 0
    )
    losses = [{"kind": "kl", "logits": "main"}, {"kind": "jdt", "logits": "main", "smooth": 1.0}]
    tree = {**PRESET, "loss": losses, "labels": {"kind": "raters"}}
    preset = write_preset(tmp_path / "toy.yaml", tree, data={"dataset": "mine", "crop": [48, 64]}, train={"steps": 6})
    assert main(["data", "info", "mine"]) == 0
    assert "up to 3 raters labelled each picture" in capsys.readouterr().out
    assert (
        main(
            ["train", "--preset", str(preset), "--set", "labels={kind: hard}", "--set", "loss.0.kind=cross_entropy", "--dry-run"]
        )
        == 0
    )
    assert "labels: the majority of up to 3 raters" in capsys.readouterr().err
    assert main(["train", "--preset", str(preset), "--dry-run"]) == 0
    assert "majority" not in capsys.readouterr().err
    assert main(["train", "--preset", str(preset)]) == 0
    assert main(["eval", "runs/toy"]) == 0
    said = capsys.readouterr().out
    assert "Several raters: BDice_D " in said
    assert "Calibration errors: ECE_D " in said
    folder = tmp_path / "runs" / "toy" / "eval" / "val"
    scores = json.loads((folder / "scores.json").read_text())
    assert 0 < scores["BDice_D"] <= 100
    assert load_counts(folder / "counts.npz").raters.counts.shape == (3, 9, 2, 3)
    assert main(["eval", "runs/toy", "--processes", "2"]) == 0
    assert json.loads((folder / "scores.json").read_text())["BDice_I"] == scores["BDice_I"]
    assert (
        main(
            [
                "train",
                "--preset",
                str(preset),
                "--set",
                "labels.mean=uniform",
                "--run",
                "runs/other",
                "--set",
                "train.accumulate=2",
            ]
        )
        == 0
    )
