"""`segctl presets` as a person and as a program see it."""

import json
from pathlib import Path

import pytest
from toy import write_preset

from segctl.cli import main


def test_list_shows_every_preset_with_its_teacher(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "list"]) == 0
    shown = capsys.readouterr().out
    assert "cityscapes-psp18" in shown
    assert "cityscapes-dl101" in shown


def test_list_as_json_is_the_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "list", "--json"]) == 0
    names = json.loads(capsys.readouterr().out)
    assert names == sorted(names)
    assert "camvid-psp18" in names


def test_show_prints_the_formula_of_the_total_loss(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "show", "camvid-psp18", "--set", "train.steps=7"]) == 0
    shown = capsys.readouterr().out
    assert "steps: 7" in shown
    assert "# L = 0.5·[0.125·CE(main, y) + 0.125·CE(aux, y) + 0.75·Jaccard_D(main, y; s=1)]" in shown
    assert "#   + 0.375·Jaccard_D(main, teacher; s=1)" in shown


def test_show_says_what_a_preset_needs_and_how_it_differs_from_the_published_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "show", "cityscapes-dl18-cirkd"]) == 0
    shown = capsys.readouterr().out
    assert "\n# Expected: 76.38 mIoU_D published (winycg/CIRKD README.md at 2d8ad0f); not yet reproduced here.\n" in shown
    assert "\n# Needs: resnet18-imagenet.pth in the current folder" in shown
    differs = "labels are resized at pixel centres; cross-entropy is the mean over the whole batch; fp32 as there."
    assert f"\n# Differs from the published run: {differs}\n" in shown
    assert main(["presets", "show", "cityscapes-dl18-cirkd", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["remarks"]["Differs"] == differs


def test_what_show_prints_is_a_preset_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["presets", "show", "camvid-psp18"])
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out, encoding="utf-8")
    assert main(["presets", "check", str(path)]) == 0
    assert capsys.readouterr().out == f"{path}: a complete distillation run called 'camvid-psp18'\n"


def test_check_lists_every_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_preset(tmp_path / "mine.yaml")
    path.write_text(path.read_text(encoding="utf-8").replace("power:", "powr:").replace("flip: 0.5", "flip: 5"), encoding="utf-8")
    assert main(["presets", "check", str(path)]) == 2
    said = capsys.readouterr().err
    assert f"error: preset '{path}' has 2 faults" in said
    assert "  schedule.powr: unknown key, did you mean 'power'?" in said
    assert "  data.flip: got 5, wanted at most 1" in said


def test_list_shows_what_a_prediction_costs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets", "list"]) == 0
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("cityscapes-psp18 ")]
    assert row[4:7] == ["12.6", "867.6", "1024×2048"]
