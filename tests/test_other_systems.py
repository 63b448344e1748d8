"""segctl imports and runs where modules and names are missing that only Linux and macOS, or only Linux, have."""

import subprocess
import sys
from pathlib import Path

import pytest
from toy import STUDENT, draw_camvid, write_preset

BLOCKED = """
import os, signal, sys
sys.modules["resource"] = None
for place, names in {
    signal: ("SIGUSR1", "SIGUSR2", "SIGHUP", "SIGQUIT", "SIGALRM", "SIGKILL"),
    os: ("pread", "fork", "forkpty", "sched_getaffinity", "O_NOFOLLOW"),
}.items():
    for name in names:
        if hasattr(place, name):
            delattr(place, name)
"""
"""Put before a program, this takes away what Windows lacks. Processes that it spawns run it again."""

PIPELINE = """
import multiprocessing
from segctl.cli import main

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    for line in open("commands.txt", encoding="utf-8").read().splitlines():
        code = main(line.split())
        print(code, line, flush=True)
        if code:
            sys.exit(1)
"""


@pytest.mark.slow
def test_every_module_imports_without_them() -> None:
    code = BLOCKED + (
        "import importlib, pkgutil, segctl\n"
        "for module in pkgutil.walk_packages(segctl.__path__, 'segctl.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
    )
    found = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


@pytest.mark.slow
def test_the_toy_is_prepared_trained_distilled_scored_and_reported_without_them(tmp_path: Path) -> None:
    draw_camvid(tmp_path / "source")
    few = {"train": {"steps": 60, "batch_size": 8, "validate_every": 60, "checkpoint_every": 30}, "data": {"workers": 1}}
    write_preset(tmp_path / "teacher.yaml", **few)
    write_preset(tmp_path / "student.yaml", STUDENT, train={"steps": 2, "validate_every": 2}, data={"workers": 1})
    (tmp_path / "commands.txt").write_text(
        "data prepare camvid --source source --workers 2\n"
        "data check camvid\n"
        "train --preset teacher.yaml --run teacher\n"
        "distill --preset student.yaml --teacher teacher --dry-run\n"
        "distill --preset student.yaml --teacher teacher --run student\n"
        "eval student\n"
        "predict student source/val -o masks\n"
        "report student -o report.md\n"
    )
    (tmp_path / "program.py").write_text(BLOCKED + PIPELINE)
    found = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "Traceback" not in found.stderr
    assert (tmp_path / "report.md").is_file()
