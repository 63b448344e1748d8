"""A whole program on the pretend device, started as `python` would start it."""

import subprocess
import sys
from pathlib import Path

import pytest

LAUNCHER = Path(__file__).with_name("launch.py")
ASKED = (
    "import sys, torch; print(__name__, sys.argv[1:], torch.cuda.get_device_name(), torch.ones(2, device='cuda').sum().item())"
)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["a file", "a module", "code"])
def test_a_program_finds_the_device_its_name_and_its_arguments(how: str, guard: Path, tmp_path: Path) -> None:
    (tmp_path / "asks.py").write_text(ASKED, encoding="utf-8")
    words = {"a file": [str(tmp_path / "asks.py")], "a module": ["-m", "asks"], "code": ["-c", ASKED]}[how]
    done = subprocess.run(
        [sys.executable, str(LAUNCHER), str(guard), *words, "--small", "x"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "__main__ ['--small', 'x'] Pretend GPU 2.0"
