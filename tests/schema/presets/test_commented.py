"""A preset file with comments says the same as the run that it was made of."""

from pathlib import Path

import pytest

from segctl.schema.load import load_preset, preset_names
from segctl.schema.presets.commented import commented


@pytest.mark.parametrize("name", preset_names())
def test_the_file_is_read_as_the_same_run(name: str, tmp_path: Path) -> None:
    run = load_preset(name)
    path = tmp_path / "mine.yaml"
    path.write_text(commented(run, "fast", ["a reason"]), encoding="utf-8")
    assert load_preset(str(path)) == run


def test_every_setting_has_its_meaning_above_it_and_the_reasons_come_first() -> None:
    text = commented(load_preset("camvid-fast"), "fast", ["steps 7: because"])
    lines = text.splitlines()
    assert lines[:4] == [
        "# Like 'fast', on the dataset 'camvid'.",
        "# Command:  segctl distill --preset camvid-fast.yaml",
        "# Chosen by segctl from the dataset:",
        "#   steps 7: because",
    ]
    crop = lines.index("  crop: [360, 480]")
    assert lines[crop - 1] == "  # Height and width of a training crop, in pixels."
    assert "published:" not in text
