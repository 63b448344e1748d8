"""Four processes that two of torch's agents started, as on two machines. One is killed, and the agents start all again."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file
from toy import write_preset

pytestmark = pytest.mark.slow

STEPS = 30
LIMIT_S = 300


def agents(arguments: list[str], port: int, restarts: int) -> list["subprocess.Popen[str]"]:
    """Two agents of two processes each."""
    launcher = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
        "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "toy", "--max-restarts", str(restarts), "--monitor-interval", "0.2",
        "-m", "--", "segctl", *arguments,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return [
        subprocess.Popen(launcher, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    ]


def ends(started: list["subprocess.Popen[str]"]) -> str:
    """What both agents said; they must end well."""
    said = [agent.communicate(timeout=LIMIT_S)[0] for agent in started]
    assert [agent.returncode for agent in started] == [0, 0], said
    return "\n".join(said)


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def workers() -> list[int]:
    """The pids of the processes that train under an agent of this test."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            parent = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
            if b"segctl" in words and b"torch.distributed.run" not in words and parent in AGENTS:
                found.append(int(folder.name))
    return found


AGENTS: set[str] = set()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_a_process_dies_on_one_of_two_machines_and_the_run_goes_on(toy_data: Path, tmp_path: Path) -> None:
    preset = write_preset(
        tmp_path / "toy.yaml", train={"steps": STEPS, "batch_size": 4, "checkpoint_every": 2, "validate_every": STEPS}
    )
    common = ["--data-root", str(toy_data), "--device", "cpu"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    said = ends(agents(["train", "--preset", str(preset), "--run", str(whole), *common], free_port(), 0))
    assert "batch 4 over 4 processes" in said

    # The run exists: stopped after its first checkpoint, as the page says.
    first = subprocess.Popen(
        [sys.executable, "-m", "segctl", "train", "--preset", str(preset), "--run", str(killed), *common, "--processes", "4"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    wait_for(lambda: (killed / "last.pt").is_file())
    first.send_signal(signal.SIGTERM)
    first.wait(LIMIT_S)

    before = (killed / "last.pt").stat().st_mtime
    started = agents(["train", "--resume", "--run", str(killed), *common], free_port(), 3)
    AGENTS.update(str(agent.pid) for agent in started)
    wait_for(lambda: (killed / "last.pt").stat().st_mtime > before)
    victim = workers()[-1]
    os.kill(victim, signal.SIGKILL)
    ends(started)
    assert (killed / "model.safetensors").is_file()
    once, twice = (load_file(run / "model.safetensors") for run in (whole, killed))
    assert all(bool((once[name] == twice[name]).all()) for name in once)  # resumed exactly, twice


def wait_for(event: "object") -> None:
    assert callable(event)
    until = time.monotonic() + LIMIT_S
    while not event():
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.02)
