"""A run's folder has one writer, and the processes that segctl starts end with it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from forked import kill, start_segctl
from toy import STUDENT, write_preset
from waiting import LIMIT, wait_for

from segctl.cli import main
from segctl.runs import RunFolder

ENDLESS = {"steps": 20_000, "validate_every": 20_000, "checkpoint_every": 5}


def steps(folder: RunFolder) -> list[int]:
    return [event["step"] for event in folder.read_log() if event["event"] == "step"]


@pytest.mark.slow
def test_a_second_writer_is_told_who_trains_the_run(toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = write_preset(tmp_path / "toy.yaml", train=ENDLESS)
    folder = RunFolder(tmp_path / "run")
    roots = ["--run", str(folder.path), "--data-root", str(toy_data)]
    process = start_segctl(["train", "--preset", str(preset), *roots])
    wait_for(lambda: folder.last.is_file() and len(steps(folder)) > 0)
    assert main(["train", "--resume", *roots]) == 1
    assert main(["train", *roots, "--extend-to", "30000"]) == 1
    said = capsys.readouterr().err
    assert said.count(f"error: the run '{folder.path}' is under way in process {process.pid} on ") == 2
    assert folder.read_run().train.steps == 20_000
    kill(process)
    # The killed writer's lock is free at once, though its file is still there.
    assert folder.lock.is_file()
    assert main(["train", "--resume", *roots, "--seed", "7"]) == 2
    assert "train.seed: 0 -> 7" in capsys.readouterr().err
    assert not folder.lock.exists()
    found = steps(folder)
    assert found == sorted(set(found))


def children(process: "subprocess.Popen[str]") -> list[psutil.Process]:
    return psutil.Process(process.pid).children()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
@pytest.mark.parametrize("verb", ["compare", "processes"])
def test_children_end_with_a_parent_that_was_killed(verb: str, toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    preset = write_preset(tmp_path / "student.yaml", STUDENT, train=ENDLESS)
    common = ["--preset", str(preset), "--data-root", str(toy_data), "--runs-root", str(tmp_path)]
    if verb == "compare":
        arguments, folder = ["compare", "--methods", "none", "--seeds", "1"], RunFolder(tmp_path / "toy-student-none-seed0")
    else:
        arguments, folder = ["distill", "--method", "none", "--processes", "2"], RunFolder(tmp_path / "toy-student-none")
    command = [sys.executable, "-m", "segctl", *arguments, *common]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True)
    try:
        wait_for(lambda: len(steps(folder)) > 10)
        started = [child for child in children(process) if "segctl" in " ".join(child.cmdline())]
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert len(started) == (1 if verb == "compare" else 2)
    _, alive = psutil.wait_procs(started, timeout=LIMIT)
    assert alive == []
    # They were asked to stop, so they saved their state.
    assert "stopped by SIGTERM" in folder.train_log.read_text()
    assert not folder.lock.exists()
