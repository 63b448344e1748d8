"""docs/export.md says what works: every command and every piece of code on the page is run, in its order."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from segctl.bench import measure
from segctl.cli import main
from tests.export.loopback_hub import loopback_hub

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def blocks() -> list[tuple[str, str]]:
    """(language, text) of each block; commands have no language."""
    return BLOCK.findall(PAGE.read_text(encoding="utf-8"))


def commands(text: str) -> list[list[str]]:
    return [shlex.split(line, comments=True)[1:] for line in text.splitlines()]


def test_every_command_of_the_page_has_these_options(capsys: pytest.CaptureFixture[str]) -> None:
    asked = [command for language, text in blocks() if not language for command in commands(text)]
    assert {command[0] for command in asked} == {"export", "eval", "predict", "bench", "push"}
    for command in asked:
        assert main([command[0], "--help"]) == 0
        shown = capsys.readouterr().out
        assert [word for word in command if word.startswith("--") and word not in shown and "no-compile" not in word] == []


@pytest.mark.slow
def test_every_command_and_all_code_of_the_page_runs(
    toy_teacher: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGCTL_DATA", str(toy_data))
    monkeypatch.setattr(measure, "ROUNDS", (2, 2))
    monkeypatch.chdir(tmp_path)
    shutil.copytree(toy_teacher, "runs/x", ignore=shutil.ignore_patterns("eval", "export"))
    Path("photos").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)).save("photos/a.jpg")
    with loopback_hub() as hub:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("HF_TOKEN", "hf_x")
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
        for language, text in blocks():
            if language == "python":
                exec(text, {})
            for command in [] if language else commands(text):
                barely_trained = ["--tolerance", "100"] if "--int8" in command else []
                assert main([*command, *barely_trained]) == 0, command
        assert "export/model-int8.onnx" in hub.repositories["me/camvid-tiny"]
    assert Path("a-overlay.jpg").is_file()
