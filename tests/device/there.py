"""Work on the pretend device, each in a process of its own: the device cannot be taken away again."""

import multiprocessing
import pickle
import shutil
import subprocess
import sys
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

HERE = Path(__file__).parent


def build_guard(folder: Path) -> Path | str:
    """The library made from guard.cpp, in a folder; or the reason why this machine cannot build it."""
    compiler = next((path for name in ("g++", "clang++", "c++") if (path := shutil.which(name))), None)
    if compiler is None or sys.platform != "linux":
        return "wants Linux and a C++ compiler"
    root = Path(torch.__file__).parent
    library = folder / "guard.so"
    include = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}"]
    command = [compiler, "-O0", "-std=c++20", "-fPIC", "-shared", *include, str(HERE / "guard.cpp"), "-o", str(library)]
    done = subprocess.run([*command, f"-L{root / 'lib'}", "-lc10", "-ltorch_cpu"], capture_output=True, text=True, check=False)
    return library if done.returncode == 0 else f"the compiler refuses guard.cpp: {done.stderr.strip().splitlines()[:1]}"


def run_there(guard: Path, folder: Path, work: Callable[..., Any], *arguments: Any) -> Any:
    """What `work(*arguments)` gives in a process with the pretend device. Fails with that process's traceback."""
    return _finished(*_started(guard, folder / f"{work.__name__}.pickle", work, arguments))


def run_ranks_there(guard: Path, folder: Path, work: Callable[[int, int], Any], size: int) -> list[Any]:
    """What `work(rank, size)` gives in each of several processes with the pretend device and a strict group for it."""
    from tests.device.fake_nccl import take_part

    started = [
        _started(guard, folder / f"{rank}.pickle", take_part, (rank, size, folder / "meeting", work)) for rank in range(size)
    ]
    return [_finished(*each) for each in started]


def _started(guard: Path, result: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[BaseProcess, Path]:
    process = multiprocessing.get_context("forkserver").Process(target=_work, args=(guard, result, work, arguments))
    process.start()
    return process, result


def _finished(process: BaseProcess, result: Path) -> Any:
    process.join()
    assert result.is_file(), f"the process ended with {process.exitcode}"
    failure, found = pickle.loads(result.read_bytes())
    result.unlink()
    assert failure is None, f"on the pretend device:\n{failure}"
    return found


def _work(guard: Path, result: Path, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    from tests.device import pretend

    torch.set_num_threads(1)
    pretend.install(guard)
    try:
        content = (None, work(*arguments))
    except BaseException:
        content = (traceback.format_exc(), None)
    result.write_bytes(pickle.dumps(content))
