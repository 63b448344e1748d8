"""The device and the precision of a run, each with the reason why it was chosen."""

import os
from dataclasses import dataclass, replace
from typing import Literal

import torch

from segctl.errors import InputError
from segctl.runtime.device_name import check_device_name

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Compute:
    """The device and the precision that networks run in. Losses sum in float32 whatever the precision is."""

    device: torch.device
    device_reason: str
    precision: Precision
    precision_reason: str
    device_given: bool = False
    """Whether --device named the device, so that a command to resume must name it too."""

    @property
    def dtype(self) -> torch.dtype:
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def autocast(self) -> torch.autocast:
        """The context in which networks run forward."""
        return torch.autocast(self.device.type, dtype=self.dtype, enabled=self.precision != "fp32")

    def __str__(self) -> str:
        return f"device {self.device} ({self.device_reason})   precision {self.precision} ({self.precision_reason})"


def choose_compute(device: str | None, precision: str = "auto") -> Compute:
    """The named device, or a GPU if there is one; the named precision, or for "auto" the fastest that the device supports.

    Raises InputError for a device that this machine does not have, and for fp16 on anything but a CUDA GPU.
    """
    chosen, reason = _choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    arithmetic, why = _choose_precision(precision, chosen)
    return Compute(chosen, reason, arithmetic, why, device_given=device is not None)


def choose_scoring_compute(device: str | None, trained_in: str, precision: str | None = None) -> Compute:
    """The precision that the run was trained in, so that every command gives the same score; fp32 if the device is slow in it.

    precision: use this one instead.  Raises InputError for an unknown precision, and for fp16 on a CPU.
    """
    if precision is not None:
        if precision not in ("auto", "fp32", "bf16", "fp16"):
            raise InputError(f"--precision '{precision}' is not known", "use auto, fp32, bf16 or fp16")
        if precision == "fp16" and (kind := _choose_device(device)[0].type) != "cuda":
            where = "a CPU" if kind == "cpu" else kind
            raise InputError(f"--precision fp16 does not work on {where}", "use auto, fp32 or bf16")
        return choose_compute(device, precision)
    chosen, _ = _choose_device(device)
    possible = trained_in != "fp16" or chosen.type == "cuda"
    if trained_in == "bf16":
        possible = _has_fast_bf16(chosen)
    compute = choose_compute(device, trained_in if possible else "fp32")
    reason = "as it was trained" if possible else f"trained in {trained_in}, which is slow on this device"
    return replace(compute, precision_reason=reason)


def _choose_device(name: str | None) -> tuple[torch.device, str]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if 0 < count < local_size and (name is None or name.startswith("cuda")):
        raise InputError(
            f"{local_size} processes on this machine need one GPU each, and the machine has {count}",
            f"use --processes {count}, or --device cpu",
        )
    if name is None:
        return (torch.device("cuda", local_rank % count), "found") if count else (torch.device("cpu"), "no GPU found")
    device = torch.device(check_device_name(name))
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            raise InputError(
                f"--device '{name}' does not exist: this machine, or this build of torch, has no Apple GPU", "use --device cpu"
            )
        return device, "as given"
    if device.type == "cpu":
        return torch.device("cpu"), "as given"
    if (device.index or 0) >= count:
        raise InputError(f"--device '{name}' does not exist: this machine has {count} usable GPUs", "use --device cpu")
    return torch.device("cuda", local_rank % count if device.index is None else device.index), "as given"


def _choose_precision(name: str, device: torch.device) -> tuple[Precision, str]:
    match name:
        case "auto":
            return ("bf16", "the device supports it") if _has_fast_bf16(device) else ("fp32", "the device has no fast bf16")
        case "fp16":
            if device.type != "cuda":  # its gradients vanish without scaling, which only CUDA has been tried with
                where = "a CPU" if device.type == "cpu" else device.type
                raise InputError(
                    f"train.precision: got 'fp16' on {where}, wanted 'auto', 'fp32' or 'bf16'", "add --set train.precision=auto"
                )
            return "fp16", "as given"
        case "bf16":
            return "bf16", "as given" if _has_fast_bf16(device) else "as given; this device emulates it, which is slow"
        case _:
            return "fp32", "as given" + (", convolutions in TF32" if _rounds_to_tf32(device) else "")


def tf32(compute: Compute) -> dict[str, bool]:
    """Whether fp32 convolutions and matrix products round their factors to TF32 (10 bits) on this device, as torch has it set.

    torch's own default rounds convolutions alone, on GPUs from Ampere on; segctl leaves it so and says it, because the published
    runs had that default too where their GPU had TF32.
    """
    there = compute.precision == "fp32" and _has_tf32(compute.device)
    return {"convolutions": there and _rounds_to_tf32(compute.device), "products": there and _products_in_tf32()}


def _has_tf32(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _rounds_to_tf32(device: torch.device) -> bool:
    return _has_tf32(device) and bool(torch.backends.cudnn.allow_tf32)


def _products_in_tf32() -> bool:
    return torch.get_float32_matmul_precision() != "highest"


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):  # neither is public; either may be missing
        probe = getattr(torch.cpu, name, None)
        if probe is not None and probe():
            return True
    return False
