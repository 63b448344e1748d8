"""Reads the steps of a page `docs/add-a-….md`, and performs them in a copy of the repository."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
STEP = re.compile(r"^\d+\. .*?(?=^\d+\. |^Try it:)", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"\b(?:in `(?P<file>[^`]+)`,\s+(?P<side>above|below)\s+`(?P<anchor>[^`]+)`|create\s+`(?P<new>[^`]+)`)")
CODE = re.compile(r"^    ```python\n(?P<code>.*?)^    ```$", re.MULTILINE | re.DOTALL)
COMMANDS = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Step:
    """One numbered step: a file to create, or lines to add above or below the one line `anchor`."""

    file: str
    side: str
    anchor: str
    code: str

    def perform(self, root: Path) -> None:
        path = root / self.file
        if not self.anchor:
            assert not path.exists(), f"{self.file} exists already"
            path.write_text(self.code, encoding="utf-8")
            return
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        places = [number for number, line in enumerate(lines) if line.rstrip("\n") == self.anchor]
        assert len(places) == 1, f"{self.file} has {len(places)} lines `{self.anchor}`, wanted one"
        # Above is a class beside other classes, with two blank lines between them, as everywhere in Python.
        lines.insert(places[0] + (self.side == "below"), self.code + ("\n\n" if self.side == "above" else ""))
        path.write_text("".join(lines), encoding="utf-8")


def steps_of(page: str) -> list[Step]:
    """The numbered steps of a page in their order."""
    steps = []
    for text in STEP.findall((ROOT / "docs" / page).read_text(encoding="utf-8")):
        place, code = PLACE.search(text), CODE.search(text)
        assert place is not None, f"a step names no file: {text}"
        assert code is not None, f"a step shows no code: {text}"
        unindented = re.sub(r"^    ", "", code["code"], flags=re.MULTILINE)
        steps.append(Step(place["new"] or place["file"], place["side"] or "", place["anchor"] or "", unindented))
    return steps


def commands_of(page: str) -> list[str]:
    """The lines under `Try it:`."""
    (block,) = COMMANDS.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))
    return block.splitlines()


def copy_repository(folder: Path) -> Path:
    """What the steps change and the commands read."""
    for name in ("segctl", "tests", "presets"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run(folder: Path, command: str) -> str:
    """Run `segctl …`, `pytest …` or `python …` in the copy, and return its output. Fails with that output."""
    program, *arguments = shlex.split(command)
    modules = {"segctl": ["-m", "segctl"], "pytest": ["-m", "pytest", "-q", "-p", "no:cacheprovider"], "python": []}
    environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    line = [sys.executable, *modules[program], *arguments]
    found = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, f"{command}\n{found.stdout}{found.stderr}"
    return found.stdout
