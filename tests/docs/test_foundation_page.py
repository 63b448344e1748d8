"""The commands of docs/foundation.md, with toys in place of its dataset and its weights."""

import json
import re
from pathlib import Path

import pytest
import yaml
from toy import STUDENT

from segctl.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "foundation.md"


def commands() -> list[list[str]]:
    blocks = re.findall(r"```bash\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return [line.split()[1:] for block in blocks for line in block.splitlines()]


@pytest.mark.slow
def test_the_pages_commands_do_what_it_says(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGCTL_DATA", str(toy_data))
    Path("student.yaml").write_text(yaml.safe_dump(STUDENT))
    small = ["--device", "cpu", "--set", "train.steps=2", "--set", "train.batch_size=2", "--set", "data.workers=0"]
    foundation = ["--set", "model.weights=none", "--set", "data.crop=[32,48]"]
    vit = ["--set", "model.backbone=test_vit", "--set", "model.output_stride=16", "--set", "model.final_norm=true"]
    names = {"streets": "camvid", "timm:vit_small_patch16_dinov3": "timm:test_vit"}
    train, distill, pretrain, after = ([names.get(word, word) for word in line] for line in commands())
    assert main([*train, *small, *foundation, *vit]) == 0
    # A student of the toy's own, and a dry run: two random steps make no teacher that passes the trial.
    own = ["student.yaml" if word == "fast" else word for word in distill]
    assert main([*own, *small, "--dry-run"]) == 0
    own = ["student.yaml" if word == "fast" else word for word in pretrain]
    assert main([*own, *small, "--set", "pretrain.weights=none"]) == 0
    own = ["student.yaml" if word == "fast" else word for word in after]
    assert main([*own, *small, "--run", "runs/after"]) == 0
    assert json.loads(Path("runs/after/environment.json").read_text())["initial_weights"] == "runs/backbone"


@pytest.mark.parametrize("line", commands(), ids=" ".join)
def test_every_option_of_the_page_exists(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([line[0], "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in line if word.startswith("--"))


def test_the_table_of_backbones_is_right() -> None:
    from segctl.models.timm_backbone import has_final_norm, own_stride

    rows = re.findall(r"^\| (`.*`) \| (\d+) \| (true|false) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 4
    for names, stride, normed in rows:
        for name in re.findall(r"`(.*?)`", names):
            assert (own_stride(name), has_final_norm(name)) == (int(stride), normed == "true")
