"""Four processes that two of torch's agents started, as on two machines."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from toy import write_preset

from segctl.cli import main

LIMIT_S = 300
DIES_ONCE = """
import os, signal, sys
import segctl.train.loop as loop
from segctl.__main__ import main

take_step = loop.take_step

def step(session, batch):
    if (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"], session.state.step) == ("3", "0", 3):
        os.kill(os.getpid(), signal.SIGKILL)
    return take_step(session, batch)

loop.take_step = step
main()
"""


def agents(run: Path, preset: Path, data: Path, program: list[str], *options: str) -> str:
    """Train with two agents of two processes each; what they printed. Fails unless both end well."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    launcher = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
        "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "toy", *options, *program, "train", "--preset", str(preset),
        "--run", str(run), "--data-root", str(data), "--device", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(launcher, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    ]
    said = "".join(agent.communicate(timeout=LIMIT_S)[0] for agent in started)
    assert [agent.returncode for agent in started] == [0, 0], said
    return said


@pytest.mark.slow
def test_two_machines_train_as_one_and_go_on_by_themselves_after_a_death(toy_data: Path, tmp_path: Path) -> None:
    """Process 3 is killed before step 4. The last checkpoint is of step 2, so step 3 is taken again, to the same bits."""
    train = {"steps": 6, "batch_size": 4, "validate_every": 6, "checkpoint_every": 2}
    preset = write_preset(tmp_path / "toy.yaml", train=train)
    said = agents(tmp_path / "calm", preset, toy_data, ["-m", "--", "segctl"])
    assert "batch 4 over 4 processes" in said
    (tmp_path / "dies.py").write_text(DIES_ONCE, encoding="utf-8")
    said = agents(tmp_path / "killed", preset, toy_data, ["--", str(tmp_path / "dies.py")], "--max-restarts", "2")
    assert "torchrun has started the processes again: the run goes on from its last checkpoint" in said
    assert "after step 2 of 6" in said
    logged = [json.loads(line) for line in (tmp_path / "killed" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [event["step"] for event in logged if event["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("calm", "killed")]
    assert weights[0] == weights[1]


def test_a_restart_needs_to_know_its_run(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    preset = write_preset(tmp_path / "toy.yaml")
    assert main(["train", "--preset", str(preset), "--data-root", str(toy_data), "--runs-root", str(tmp_path / "runs")]) == 2
    assert "torchrun may start the processes of this run 2 times again, but without --run they cannot" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_restart_after_the_end_has_nothing_to_do(
    toy_data: Path, toy_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another process died after the run was whole. A person who types the same command is told that the folder exists."""
    preset, before = write_preset(tmp_path / "toy.yaml"), sorted(toy_teacher.iterdir())
    command = ["train", "--preset", str(preset), "--data-root", str(toy_data), "--run", str(toy_teacher), "--device", "cpu"]
    assert main(command) == 2
    monkeypatch.setenv("TORCHELASTIC_MAX_RESTARTS", "2")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert main(command) == 0
    assert "torchrun has started the processes again: the run has finished" in capsys.readouterr().err
    assert sorted(toy_teacher.iterdir()) == before
