"""A run that was killed and taken up again ends with the very weights of one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest
import torch
from forked import kill, start_segctl
from toy import PRESET, STUDENT, write_preset
from waiting import LIMIT, wait_for

from segctl.cli import main
from segctl.models import read
from tests.slow_cases import slow_after

STEPS = 12
SETTINGS = {"train": {"steps": STEPS, "checkpoint_every": 3, "validate_every": 5, "ema": 0.9}, "data": {"workers": 2}}


def options(preset: Path, run: Path, data: Path, *more: str) -> list[str]:
    verb = "distill" if "student" in preset.name else "train"
    return [verb, "--preset", str(preset), "--run", str(run), "--data-root", str(data), *more]


def command(preset: Path, run: Path, data: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "segctl", *options(preset, run, data, *more)]


def steps_logged(run: Path) -> int:
    path = run / "log.jsonl"
    if not path.is_file():
        return 0
    lines = path.read_text(encoding="utf-8").splitlines()
    return max((json.loads(line).get("step", 0) for line in lines if line.endswith("}")), default=0)


def kill_after(step: int, arguments: list[str], run: Path, number: signal.Signals = signal.SIGKILL) -> subprocess.Popen[str]:
    """Start a run and send it a signal once the log says that a step has been taken."""
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while steps_logged(run) < step and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(number)
    process.wait(timeout=LIMIT)
    return process


def weights(run: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read(run).weights
    return found


def assert_same_weights(one: Path, other: Path) -> None:
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert torch.equal(value, theirs[name]), name


@pytest.mark.slow
def test_a_killed_run_ends_with_the_weights_of_an_undisturbed_one(toy_data: Path, tmp_path: Path) -> None:
    """One kill of a process forked for it; the slow tests below kill oftener, whole processes with loader workers."""
    preset = write_preset(tmp_path / "toy.yaml", train=SETTINGS["train"])
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert main(options(preset, undisturbed, toy_data)) == 0
    process = start_segctl(options(preset, killed, toy_data))
    wait_for(lambda: steps_logged(killed) >= 7)
    kill(process)
    assert not (killed / "model.safetensors").exists()
    assert main(options(preset, killed, toy_data, "--resume")) == 0
    assert_same_weights(undisturbed, killed)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["train", "distill"])
def test_killed_runs_end_with_the_weights_of_an_undisturbed_one(
    method: str, toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    tree, name = (PRESET, "toy.yaml") if method == "train" else (STUDENT, "student.yaml")
    preset = write_preset(tmp_path / name, tree, **SETTINGS)
    teacher = [] if method == "train" else ["--teacher", str(toy_teacher)]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    subprocess.run(command(preset, undisturbed, toy_data, *teacher), check=True, capture_output=True)

    kill_after(2, command(preset, killed, toy_data, *teacher), killed)
    kill_after(7, command(preset, killed, toy_data, *teacher, "--resume"), killed)
    assert not (killed / "model.safetensors").exists()
    subprocess.run(command(preset, killed, toy_data, *teacher, "--resume"), check=True, capture_output=True)

    assert_same_weights(undisturbed, killed)
    logged = [json.loads(line) for line in (killed / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["step"] for event in logged if event["event"] == "step"] == list(range(1, STEPS + 1))
    assert [event["step"] for event in logged if event["event"] == "validation"] == [5, 10, 12]
    again = [event["scores"] for event in logged if event["event"] == "validation"]
    first = [json.loads(line) for line in (undisturbed / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert again == [event["scores"] for event in first if event["event"] == "validation"]


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Something else that goes on in a thread, such as a person who sends signals; what fails in it fails here."""
    with ThreadPoolExecutor(1) as thread:
        going = thread.submit(work)
        yield
        going.result(timeout=LIMIT)


@pytest.mark.parametrize(
    ("number", "code", "name"), slow_after([(signal.SIGINT, 130, "SIGINT"), (signal.SIGTERM, 143, "SIGTERM")])
)
def test_a_polite_signal_saves_and_says_how_to_go_on(
    number: signal.Signals, code: int, name: str, toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(tmp_path / "toy.yaml", train={"steps": 2000, "validate_every": 2000, "checkpoint_every": 2000})
    run = tmp_path / "run"

    def stop() -> None:
        wait_for(lambda: steps_logged(run) >= 20)
        os.kill(os.getpid(), number)

    with meanwhile(stop):
        assert main(options(preset, run, toy_data)) == code
    said = capsys.readouterr().err
    assert f"stopped by {name} after step" in said
    assert f"segctl train --resume --run {run} --data-root {toy_data}" in said
    assert "Traceback" not in said
    step = torch.load(run / "last.pt", weights_only=True)["step"]
    assert 20 <= step < 2000


@pytest.mark.slow
def test_sigusr1_saves_and_goes_on(toy_data: Path, tmp_path: Path) -> None:
    preset = write_preset(tmp_path / "toy.yaml", train={"steps": 2000, "validate_every": 2000, "checkpoint_every": 2000})
    run, saved = tmp_path / "run", []

    def save_and_stop() -> None:
        wait_for(lambda: steps_logged(run) >= 20)
        os.kill(os.getpid(), signal.SIGUSR1)
        wait_for((run / "last.pt").exists)
        saved.append(torch.load(run / "last.pt", weights_only=True)["step"])
        seen = steps_logged(run)
        wait_for(lambda: steps_logged(run) > seen)
        os.kill(os.getpid(), signal.SIGTERM)

    with meanwhile(save_and_stop):
        assert main(options(preset, run, toy_data)) == 143
    assert 20 <= saved[0] < torch.load(run / "last.pt", weights_only=True)["step"]


@pytest.mark.slow
def test_a_process_of_its_own_ends_politely_too(toy_data: Path, tmp_path: Path) -> None:
    preset = write_preset(tmp_path / "toy.yaml", train={"steps": 2000, "validate_every": 2000, "checkpoint_every": 2000})
    process = kill_after(20, command(preset, tmp_path / "run", toy_data), tmp_path / "run", signal.SIGTERM)
    assert process.returncode == 143
    assert process.stderr is not None
    said = process.stderr.read()
    assert "stopped by SIGTERM after step" in said
    assert "Traceback" not in said


@pytest.mark.slow
def test_thirty_kills_at_random_moments_change_nothing(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    """In steps, validations and checkpoints, while starting and while resuming: whatever the moment hits."""
    settings = {"train": {"steps": 600, "checkpoint_every": 7, "validate_every": 50, "ema": 0.9}, "data": {"workers": 2}}
    preset = write_preset(tmp_path / "student.yaml", STUDENT, **settings)
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert main(options(preset, undisturbed, toy_data, "--teacher", str(toy_teacher))) == 0
    random, kills = Random(0), 0
    while not (killed / "model.safetensors").exists():
        resume = ["--resume"] if killed.exists() else []
        process = start_segctl(options(preset, killed, toy_data, "--teacher", str(toy_teacher), *resume))
        seen = steps_logged(killed)
        while kills < 30 and steps_logged(killed) <= seen and process.is_alive() and random.random() > 0.001:
            time.sleep(0.01)  # until a step was taken, or, rarely, before that
        if kills < 30:
            time.sleep(random.random() / 4)
            assert process.is_alive() or process.exitcode == 0
            kill(process)
            kills += 1
        else:
            process.join(300)
            assert process.exitcode == 0
    assert kills == 30
    assert_same_weights(undisturbed, killed)
