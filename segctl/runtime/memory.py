"""How much memory a process has used, and what to say when the GPU's does not suffice."""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from segctl.errors import SegctlError

TRAIN_WITH_LESS = (
    "use smaller micro-batches (--set train.accumulate=2), a smaller data.crop, --set train.precision=bf16, or "
    "--set train.activation_checkpointing=true, which only costs time"
)
SCORE_WITH_LESS = (
    "score in tiles (evaluate.protocol of the preset, or --protocol sliding --tile 512x512 of `segctl eval`), one image at a "
    "time, or with --device cpu"
)


CONTROL_GROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use."""


def peak_memory_mb(device: torch.device) -> float:
    """The largest memory use so far in MB: allocated on the GPU, or resident in this process. 0 where it is unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    try:
        import resource
    except ImportError:
        return _peak_by_psutil()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3  # macOS counts bytes, Linux kilobytes


def _peak_by_psutil() -> float:
    """The peak in MB where there is no module `resource`: on Windows. Elsewhere psutil reports only the current use."""
    try:
        import psutil
    except ImportError:
        return 0.0
    memory = psutil.Process().memory_info()
    return float(getattr(memory, "peak_wset", memory.rss)) / 1e6


def free_memory_mb(device: torch.device) -> float:
    """How much memory in MB a process may still take: on the GPU, or on this machine and within this process's control group."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 1e6
    import psutil

    free = float(psutil.virtual_memory().available)
    for limit, used in (("memory.max", "memory.current"), ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):
        with suppress(OSError, ValueError):  # no such file, or `max`: no limit
            free = min(free, int((CONTROL_GROUP / limit).read_text()) - int((CONTROL_GROUP / used).read_text()))
    return max(0.0, free) / 1e6


@contextmanager
def out_of_memory_in_words(device: torch.device, hint: str | Callable[[], str]) -> Iterator[None]:
    """Turn torch's out-of-memory error into one sentence: how much memory was used, how much there is, and what needs less.

    hint: what needs less, or a function that finds out, called when the failed work has given its memory back.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        hint = _found_out(hint, error)
        total = torch.cuda.get_device_properties(device).total_memory / 1e6
        raise SegctlError(
            f"out of memory on {device}: peak use was {peak_memory_mb(device):,.0f} MB of {total:,.0f} MB", hint
        ) from error
    except (MemoryError, RuntimeError) as error:
        # On a CPU torch raises a plain RuntimeError that names its allocator.
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" not in str(error):
            raise
        hint = _found_out(hint, error)
        raise SegctlError(f"out of memory: this process had used {peak_memory_mb(device):,.0f} MB", hint) from error


def _found_out(hint: str | Callable[[], str], error: BaseException) -> str:
    if isinstance(hint, str):
        return hint
    traceback.clear_frames(error.__traceback__)  # their variables hold what the failed work computed
    return hint()
