"""How much memory a process has used, and what to say when the GPU's does not suffice."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def out_of_memory_in_words(device: torch.device, hint: str) -> Iterator[None]:
    """Turn torch's out-of-memory error into one sentence: how much memory was used, how much there is, and what needs less."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        total = torch.cuda.get_device_properties(device).total_memory / 1e6
        raise SegctlError(
            f"out of memory on {device}: peak use was {peak_memory_mb(device):,.0f} MB of {total:,.0f} MB", hint
        ) from error
    except (MemoryError, RuntimeError) as error:
        # On a CPU torch raises a plain RuntimeError that names its allocator.
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" not in str(error):
            raise
        raise SegctlError(f"out of memory: this process had used {peak_memory_mb(device):,.0f} MB", hint) from error
