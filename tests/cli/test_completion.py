"""What the shell completes, through the door that the shell uses; torch is never loaded for it."""

import json
import os
import subprocess
import sys

import pytest

ASK = """
import json, os, sys
from segctl.__main__ import main
import segctl.cli
for words in json.load(sys.stdin):
    if os.fork():
        assert os.wait()[1] == 0
        continue
    os.environ |= {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    try:
        main()
    except SystemExit as end:
        assert end.code in (0, None), end.code
    print("torch" in sys.modules, flush=True)
    os._exit(0)
"""
"""What bash runs after each of several lines; the processes share the time that Python takes to start."""

LINES = {
    "segctl train --preset camvid-psp": {"camvid-psp18", "camvid-psp18-scratch"},
    "segctl distill --method c": {"cwd", "cirkd"},
    "segctl compare --methods kd,j": {"kd,jml"},
    "segctl data info s": {"shapes", "streets"},
    "segctl train --data st": {"streets"},
    "segctl train --preset fa": {"fast", "fast-scratch"},
    "segctl presets new mine --like ti": {"tiny", "tiny-scratch"},
    "segctl eval runs/a": {"runs/a1"},
    "segctl train --set train.st": {"train.steps="},
    "segctl presets show mi": {"mine.yaml"},
}


@pytest.fixture(scope="module")
def completed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """The words that bash would offer after each line, in a folder with two runs and a prepared dataset; then `False`."""
    folder = tmp_path_factory.mktemp("completion")
    for place in ("runs/a1/run.yaml", "runs/b/run.yaml", "data/streets/dataset.json", "mine.yaml"):
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).touch()
    env = {**os.environ, "_SEGCTL_COMPLETE": "complete_bash"}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    line = [sys.executable, "-c", ASK]
    found = subprocess.run(line, input=json.dumps(list(LINES)), capture_output=True, text=True, env=env, cwd=folder, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    *answers, end = found.stdout.replace("True\n", "False\n").split("False\n")
    assert end == "", found.stdout
    assert "True\n" not in found.stdout, "torch is loaded"
    return {words: answer.split() for words, answer in zip(LINES, answers, strict=True)}


@pytest.mark.slow
@pytest.mark.parametrize("words", LINES)
def test_the_shell_completes(words: str, completed: dict[str, list[str]]) -> None:
    assert LINES[words] <= set(completed[words])
