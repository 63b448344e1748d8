"""What the machine can do, and what a run makes of it. Every choice comes with its reason."""

import os
import resource
import sys
from dataclasses import dataclass
from typing import Literal

import torch

from segctl.data.loader import default_workers
from segctl.errors import InputError
from segctl.schema.optim import TrainSpec

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Compute:
    """Where and in which arithmetic networks run; losses sum in float32 whatever this says."""

    device: torch.device
    device_reason: str
    precision: Precision
    precision_reason: str

    @property
    def dtype(self) -> torch.dtype:
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def autocast(self) -> torch.autocast:
        """The context in which networks run forward."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.precision != "fp32")

    def __str__(self) -> str:
        return f"device {self.device} ({self.device_reason})   precision {self.precision} ({self.precision_reason})"


def choose_compute(device: str | None, precision: str = "auto") -> Compute:
    """The device asked for, or the best there is; the precision asked for, or the fastest the device has. Raises InputError."""
    chosen, reason = _choose_device(device)
    arithmetic, why = _choose_precision(precision, chosen)
    return Compute(chosen, reason, arithmetic, why)


def _choose_device(name: str | None) -> tuple[torch.device, str]:
    if name is None:
        if torch.cuda.is_available():
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))), "found"
        return torch.device("cpu"), "no GPU found"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device '{name}' is no device", "use cpu, cuda or cuda:0") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device '{name}' is not supported", "use cpu, cuda or cuda:0")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device '{name}' is not there: this machine has {torch.cuda.device_count()} GPUs", "use --device cpu")
    return device, "asked for"


def _choose_precision(name: str, device: torch.device) -> tuple[Precision, str]:
    fast_bf16 = _has_fast_bf16(device)
    if name == "auto":
        if fast_bf16:
            return "bf16", "the device has it"
        return "fp32", "the device has no fast bf16"
    if name == "fp16" and device.type == "cpu":
        raise InputError(
            "train.precision: got 'fp16' on a CPU, wanted 'auto', 'fp32' or 'bf16'", "add --set train.precision=auto"
        )
    if name == "bf16" and not fast_bf16:
        return "bf16", "asked for, although this device emulates it"
    return name, "asked for"  # type: ignore[return-value]


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") or capabilities.get("bf16"))


def loader_workers(wanted: int | None, device: torch.device, processes: int = 1) -> int:
    """Loader processes per training process: the number asked for, else a share of the cores.

    A run on the CPU takes one and leaves the other cores to the network.
    """
    if wanted is not None:
        return wanted
    return default_workers(processes) if device.type == "cuda" else 1


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory so far: allocated on the GPU, or resident in this process, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3


def check_batch(train: TrainSpec, images: int, split: str) -> None:
    """Refuse a batch that the split cannot fill."""
    if train.batch_size > images:
        raise InputError(
            f"train.batch_size: got {train.batch_size}, wanted at most {images}, the images of split '{split}'",
            f"add --set train.batch_size={images}",
        )
