"""Four processes that two of torch's agents started, as on two machines."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from toy import write_preset

LIMIT_S = 300


@pytest.mark.slow
def test_two_machines_train_as_one(toy_data: Path, tmp_path: Path) -> None:
    preset = write_preset(tmp_path / "toy.yaml", train={"steps": 4, "batch_size": 4, "validate_every": 4})
    run = tmp_path / "run"
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    launcher = [
        sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
        "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "toy", "-m", "--", "segctl", "train", "--preset", str(preset),
        "--run", str(run), "--data-root", str(toy_data), "--device", "cpu",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(launcher, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    ]
    said = "".join(agent.communicate(timeout=LIMIT_S)[0] for agent in started)
    assert [agent.returncode for agent in started] == [0, 0], said
    assert "batch 4 over 4 processes" in said
    assert (run / "model.safetensors").is_file()
