"""The commands of docs/unlabelled.md, with the toy in place of its dataset and pictures."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import toy
import yaml
from PIL import Image

from segctl.cli import main
from segctl.data.shards.dataset import open_dataset
from segctl.schema.load import load_preset

PAGE = Path(__file__).parents[2] / "docs" / "unlabelled.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [line.split()[1:] for block in blocks for line in block.splitlines()]


@pytest.mark.slow
def test_the_pages_commands_do_what_it_says(toy_data, toy_teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    Path("runs/teacher").symlink_to(toy_teacher)
    Path("camvid-psp18.yaml").write_text(yaml.safe_dump(toy.STUDENT))
    Path("more-pictures").mkdir()
    random = np.random.default_rng(1)
    for index in range(9):
        Image.fromarray(random.integers(0, 256, (40, 56, 3)).astype(np.uint8)).save(f"more-pictures/{index}.png")
    few_labels = toy.PRESET["data"] | {"unlabelled": {"split": None, "per_batch": 2}}
    shipped = load_preset("camvid-semi")
    assert shipped.semi is not None
    assert (shipped.data.labelled, shipped.data.unlabelled.split) == (0.125, None)
    semi = shipped.semi.model_dump(mode="json")
    Path("camvid-semi.yaml").write_text(
        yaml.safe_dump(
            toy.PRESET | {"name": "semi", "data": few_labels, "semi": semi, "train": toy.PRESET["train"] | {"batch_size": 2}}
        )
    )
    prepare, distill, few, more, predict, pseudo = commands()
    assert main([*prepare, "--source", str(toy_data.parent / "source"), "--workers", "0"]) == 0
    assert len(open_dataset(Path("data"), "camvid").names("unlabelled")) == 9
    short = ["--set", "train.steps=2", "--set", "train.validate_every=2", "--set", "train.checkpoint_every=2", "--device", "cpu"]
    distill, few, more = (
        [f"{word}.yaml" if word in ("camvid-psp18", "camvid-semi") else word for word in command]
        for command in (distill, few, more)
    )
    assert main([*distill, *short, "--teacher", "runs/teacher", "--run", "runs/student"]) == 0
    environment = json.loads(Path("runs/student/environment.json").read_text())
    assert environment["dataset"]["unlabelled_images"] == 9
    for command, run, kind in ((few, "few", "unimatch"), (more, "more", "mean_teacher")):
        assert main([*command, *short, "--run", f"runs/{run}"]) == 0
        assert json.loads(Path(f"runs/{run}/environment.json").read_text())["method"] == kind
    few_run = yaml.safe_load(Path("runs/few/run.yaml").read_text())
    assert few_run["data"]["labelled"] == 0.25
    assert few_run["semi"] == semi
    assert main(predict) == 0
    assert main([*pseudo, "--workers", "0", "--split", "val=0.2"]) == 0
    dataset = open_dataset(Path("data"), "pseudo")
    assert dataset.provenance.predicted is not None
    assert dataset.provenance.predicted.network == "toy"
    assert 0 < sum((dataset.label(name) == 255).mean() for name in dataset.samples) / 9 <= 0.55
    supervised = yaml.safe_dump(toy.PRESET | {"data": toy.PRESET["data"] | {"dataset": "pseudo"}})
    Path("toy.yaml").write_text(supervised)
    assert main(["train", "--preset", "toy.yaml", *short, "--run", "runs/on-pseudo"]) == 0
    made = json.loads(Path("runs/on-pseudo/environment.json").read_text())["dataset"]["predicted_labels"]
    assert (made["network"], made["min_confidence"], made["images"]) == ("toy", "balanced=0.5", made["of"])
    capsys.readouterr()
    assert main(["report", "runs/student", "runs/on-pseudo", "-o", "report.md"]) == 0
    report = Path("report.md").read_text()
    assert f"`on-pseudo`: {made['of']} of its {made['of']} training labels were made by the network 'toy'" in report
    assert "`student`: it trained on 9 images without labels too" in report


@pytest.mark.parametrize("command", commands(), ids=lambda words: " ".join(words[:2]))
def test_every_option_of_the_page_exists(command, capsys):
    assert main([*command[: 2 if command[0] == "data" else 1], "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(word.split("=")[0] in shown for word in command if word.startswith("--"))
