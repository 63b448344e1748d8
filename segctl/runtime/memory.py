"""How much memory a process has used, and what to say when the GPU's does not suffice."""

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from segctl.errors import SegctlError, first_line

TRAIN_WITH_LESS = (
    "add --set train.activation_checkpointing=true, which only costs time, or --set train.precision=bf16; or use a smaller "
    "data.crop or train.batch_size; or --set train.accumulate=2, which changes an IoU loss: it then sees smaller batches"
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

    The libraries beneath torch (cuDNN, cuBLAS) allocate memory of their own and say so in a plain RuntimeError.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _out_of_gpu_memory(device, _found_out(hint, error)) from error
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, RuntimeError) and any(sign in text for sign in LIBRARIES_LACK_MEMORY):
            raise _out_of_gpu_memory(device, _found_out(hint, error)) from error
        if "device-side assert" in text:
            raise SegctlError(
                f"a check on {device} failed, most likely because of a label with an id that belongs to no class: "
                f"{first_line(error)}",
                "`segctl data check NAME` looks at every label; CUDA_LAUNCH_BLOCKING=1 in front of the command names the place",
            ) from error
        # On a CPU torch raises a plain RuntimeError that names its allocator.
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" not in text:
            raise
        hint = _found_out(hint, error)
        raise SegctlError(f"out of memory: this process had used {peak_memory_mb(device):,.0f} MB", hint) from error


def _found_out(hint: str | Callable[[], str], error: BaseException) -> str:
    if isinstance(hint, str):
        return hint
    traceback.clear_frames(error.__traceback__)  # their variables hold what the failed work computed
    return hint()


LIBRARIES_LACK_MEMORY = (
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
)


def _out_of_gpu_memory(device: torch.device, hint: str) -> SegctlError:
    """How much of the GPU this process used at most, and how much others use now."""
    free, total = (size / 1e6 for size in torch.cuda.mem_get_info(device))
    others = max(0.0, total - free - torch.cuda.memory_reserved(device) / 1e6)
    return SegctlError(
        f"out of memory on {device}: peak use was {peak_memory_mb(device):,.0f} MB of {total:,.0f} MB, of which {others:,.0f} MB "
        "belong to CUDA itself and to other programs",
        hint,
    )
