"""What the shell completes, through the door that the shell uses; torch is never loaded for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ASK = """
import sys
from segctl.__main__ import main
try:
    main()
finally:
    print("torch" in sys.modules, file=sys.stderr)
"""


def completed(words: str, folder: Path) -> list[str]:
    """The words that bash would offer after `words`, in a folder with two runs and a prepared dataset."""
    env = {**os.environ, "_SEGCTL_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    env["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    found = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, env=env, cwd=folder, check=False)
    assert found.stderr == "False\n", found.stderr
    return found.stdout.split()


@pytest.mark.parametrize(
    ("words", "some"),
    [
        ("segctl train --preset camvid-psp", {"camvid-psp18", "camvid-psp18-scratch"}),
        ("segctl distill --method c", {"cwd", "cirkd"}),
        ("segctl compare --methods kd,j", {"kd,jml"}),
        ("segctl data info s", {"shapes", "streets"}),
        ("segctl train --data st", {"streets"}),
        ("segctl train --preset fa", {"fast", "fast-scratch"}),
        ("segctl presets new mine --like ti", {"tiny", "tiny-scratch"}),
        ("segctl eval runs/a", {"runs/a1"}),
        ("segctl train --set train.st", {"train.steps="}),
        ("segctl presets show mi", {"mine.yaml"}),
    ],
)
def test_the_shell_completes(words: str, some: set[str], tmp_path: Path) -> None:
    for place in ("runs/a1/run.yaml", "runs/b/run.yaml", "data/streets/dataset.json", "mine.yaml"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    assert some <= set(completed(words, tmp_path))
