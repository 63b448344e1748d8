"""What the machine can do, and what a run makes of it. Every choice comes with its reason."""

import os
import re
import resource
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch

from segctl.errors import InputError, SegctlError
from segctl.runtime.cores import default_workers

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
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    arithmetic, why = _choose_precision(precision, chosen)
    return Compute(chosen, reason, arithmetic, why)


def choose_scoring_compute(device: str | None, trained_in: str, asked: str | None = None) -> Compute:
    """As the run was trained, so that a score does not change with the command; float32 where the device cannot do that well.

    asked: a precision that the command names instead. Raises InputError for one that is none.
    """
    if asked is not None:
        if asked not in ("auto", "fp32", "bf16", "fp16"):
            raise InputError(f"--precision '{asked}' is not known", "use auto, fp32, bf16 or fp16")
        if asked == "fp16" and _choose_device(device)[0].type == "cpu":
            raise InputError("--precision fp16 is not for a CPU", "use auto, fp32 or bf16")
        return choose_compute(device, asked)
    chosen, _ = _choose_device(device)
    possible = trained_in != "fp16" if chosen.type == "cpu" else True
    if trained_in == "bf16":
        possible = _has_fast_bf16(chosen)
    compute = choose_compute(device, trained_in if possible else "fp32")
    reason = "as it was trained" if possible else f"trained in {trained_in}, which this device does not do well"
    return replace(compute, precision_reason=reason)


def _choose_device(name: str | None) -> tuple[torch.device, str]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if 0 < count < local_size and (name is None or name.startswith("cuda")):
        raise InputError(
            f"{local_size} processes on this machine want a GPU each, and it has {count}",
            f"use --processes {count}, or --device cpu",
        )
    if name is None:
        return (torch.device("cuda", local_rank % count), "found") if count else (torch.device("cpu"), "no GPU found")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"--device '{name}' is no device", "use cpu, cuda or cuda:0") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device '{name}' is not supported", "use cpu, cuda or cuda:0")
    if device.type == "cpu":
        return torch.device("cpu"), "asked for"
    if (device.index or 0) >= count:
        raise InputError(f"--device '{name}' is not there: this machine has {count} usable GPUs", "use --device cpu")
    return torch.device("cuda", local_rank % count if device.index is None else device.index), "asked for"


def _choose_precision(name: str, device: torch.device) -> tuple[Precision, str]:
    match name:
        case "auto":
            return ("bf16", "the device has it") if _has_fast_bf16(device) else ("fp32", "the device has no fast bf16")
        case "fp16":
            if device.type == "cpu":
                raise InputError(
                    "train.precision: got 'fp16' on a CPU, wanted 'auto', 'fp32' or 'bf16'", "add --set train.precision=auto"
                )
            return "fp16", "asked for"
        case "bf16":
            return "bf16", "asked for" if _has_fast_bf16(device) else "asked for, although this device emulates it"
        case _:
            return "fp32", "asked for"


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):  # neither is public; either may be missing
        probe = getattr(torch.cpu, name, None)
        if probe is not None and probe():
            return True
    return False


CXX = ("g++", "clang++")

WORKSPACE, WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
"""The variable, and its values, under which cuBLAS adds in one order; it is read when CUDA starts."""


def set_determinism(wanted: bool) -> None:
    """Whether every operation of this process gives the same bits for the same input, or fails.

    Where it need not, cuDNN tries its kernels and keeps the fastest, which pays because crops are of one size.
    """
    if wanted and os.environ.get(WORKSPACE) not in WORKSPACES:
        os.environ[WORKSPACE] = WORKSPACES[0]
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = not wanted


def determinism_in_words(wanted: bool, device: torch.device) -> list[str]:
    """What a person should know of it before step 1."""
    if wanted:
        return ["deterministic algorithms alone (asked for): the same bits every time on the same machine"]
    if device.type == "cuda":
        return ["cuDNN keeps the fastest kernels it finds; last digits may differ from run to run (--deterministic forbids it)"]
    return []


def require_compiler() -> None:
    """What torch.compile writes must be compiled, for a CPU and a GPU alike. Raises InputError on a machine that cannot."""
    named = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([named] if named else CXX)):
        looked = f"CXX names '{named}'" if named else f"neither {' nor '.join(CXX)} is on the PATH"
        raise InputError(
            f"train.compile: got true, but this machine has no C++ compiler ({looked})",
            "install g++, or leave train.compile at false",
        )


def loader_workers(wanted: int | None, device: torch.device, processes: int = 1) -> int:
    """Loader processes per training process: the number asked for, else a share of the cores.

    A run on the CPU takes one and leaves the other cores to the network.
    """
    if wanted is not None:
        return wanted
    return default_workers(processes) if device.type == "cuda" else 1


@contextmanager
def scoring(device: torch.device) -> Iterator[None]:
    """Pictures of many sizes go through a network: cuDNN does not try its kernels on each, and too large a picture is said in one
    sentence."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(
            device,
            "score in tiles (evaluate.protocol of the preset, or --protocol sliding --tile 512x512 of `segctl eval`), one "
            "picture at a time, or with --device cpu",
        ) from error
    finally:
        torch.backends.cudnn.benchmark = before


def _out_of_memory(device: torch.device, hint: str) -> SegctlError:
    total = torch.cuda.get_device_properties(device).total_memory / 1e6
    return SegctlError(
        f"out of memory on {device}: {peak_memory_mb(device):,.0f} MB were in use at most, of {total:,.0f} MB", hint
    )


@contextmanager
def failure_in_words(device: torch.device) -> Iterator[None]:
    """Say in one sentence that the GPU's memory does not suffice, how much was used, and what takes less; or that an operation
    cannot be deterministic, or the networks not be compiled."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(
            device,
            "take smaller micro-batches (--set train.accumulate=2), a smaller data.crop, --set train.precision=bf16, or "
            "--set train.activation_checkpointing=true, which costs time alone",
        ) from error
    except RuntimeError as error:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = " ".join(lines[:2]) or type(error).__name__  # the first may only say which part failed
            raise SegctlError(
                f"train.compile: torch cannot compile the networks for {device}: {reason}",
                "go on or start again with --set train.compile=false",
            ) from error
        found = re.match(r"(\S+) does not have a deterministic implementation", str(error))
        if found is None:
            raise
        raise SegctlError(
            f"train.deterministic: torch has no deterministic form of '{found[1]}' on {device}",
            "take another backbone than the one that uses it, or leave out --deterministic",
        ) from error


def peak_memory_mb(device: torch.device) -> float:
    """Largest memory so far: allocated on the GPU, or resident in this process, in MB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
