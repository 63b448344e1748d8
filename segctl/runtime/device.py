"""The device and the precision of a run, each with the reason why it was chosen."""

import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from segctl.errors import InputError
from segctl.runtime.device_name import check_device_name
from segctl.runtime.world import World

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
        reason = self.precision_reason
        if self.device.type == "cuda":
            reason += "; TF32 for what stays in float32" if self.wants_tf32 else "; full float32, without TF32"
        return f"device {self.device} ({self.device_reason})   precision {self.precision} ({reason})"

    @property
    def wants_tf32(self) -> bool:
        """Whether float32 products may round their factors to 10 bits (TF32).

        fp32 means float32. Beside bf16 and fp16, whose factors have 7 and 10 bits, full products would be slow for nothing.
        """
        return self.precision != "fp32"

    def set_products(self) -> None:
        """Make convolutions and matrix products of this process round alike: torch's own defaults differ between the two."""
        if self.device.type == "cuda":
            torch.backends.cuda.matmul.allow_tf32 = self.wants_tf32
            torch.backends.cudnn.allow_tf32 = self.wants_tf32


def choose_compute(device: str | None, precision: str = "auto") -> Compute:
    """The named device, or a GPU if there is one; the named precision, or for "auto" the fastest that the device supports.

    Raises InputError for a device that this machine does not have, and for fp16 on anything but a CUDA GPU.
    """
    chosen, reason = _choose_device(device)
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    arithmetic, why = _choose_precision(precision, chosen)
    compute = Compute(chosen, reason, arithmetic, why, device_given=device is not None)
    compute.set_products()
    return compute


def visible_gpus() -> int:
    """How many CUDA GPUs this process sees and can use."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    return sum(not _why_unusable(torch.device("cuda", index)) for index in range(count))


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


def require_own_gpus(device: torch.device, world: World) -> None:
    """Raise InputError, on every process, if two processes of one machine have the same GPU. Every process must call this.

    Numbers do not tell: under `srun --gpus-per-task=1`, and with part of a GPU (MIG), every process sees one GPU and calls it 0.
    """
    mine = (socket.gethostname(), _identity(device)) if device.type == "cuda" else None
    found = [card for card in world.gather(mine) if card is not None]
    if len(set(found)) == len(found):
        return
    host = next(card[0] for card in found if found.count(card) > 1)
    processes, cards = ([card for card in some if card[0] == host] for some in (found, set(found)))
    raise InputError(
        f"{len(processes)} processes on '{host}' need one GPU each, and they have {len(cards)}",
        f"use --processes {len(cards)}, or --device cpu",
    )


def _identity(device: torch.device) -> str:
    """What no other GPU of this machine has. The parts of a GPU may all have its UUID, but their names in the variable differ."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return visible if visible.startswith("MIG-") else str(torch.cuda.get_device_properties(device).uuid)


def _choose_device(name: str | None) -> tuple[torch.device, str]:
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    # Fewer GPUs than processes: each process sees its own, or `require_own_gpus` will tell.
    index = int(os.environ.get("LOCAL_RANK", "0")) % max(1, count)
    if name is None:
        if not count:
            return torch.device("cpu"), "no GPU found"
        found = torch.device("cuda", index)
        lacking = _why_unusable(found)
        return (torch.device("cpu"), lacking) if lacking else (found, "found")
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
    if device.index is not None and int(os.environ.get("LOCAL_WORLD_SIZE", "1")) > 1:
        raise InputError(f"--device '{name}' is one GPU, wanted one for each process", "use --device cuda")
    found = torch.device("cuda", index if device.index is None else device.index)
    if lacking := _why_unusable(found):
        raise InputError(
            f"--device '{name}': {lacking}",
            "use --device cpu, or install a torch that was built for this GPU: its wheels of CUDA 12.6 (cu126) know older GPUs",
        )
    return found, "as given"


def _why_unusable(device: torch.device) -> str:
    """Why this build of torch cannot use a GPU, or an empty string. Without this check the first kernel would fail."""
    major, minor = torch.cuda.get_device_capability(device)
    built_for = torch.cuda.get_arch_list()
    if _has_kernels(built_for, (major, minor)):
        return ""
    name = torch.cuda.get_device_name(device)
    return f"this build of torch has no kernels for the {name} (sm_{major}{minor}; it has {', '.join(built_for)})"


def _has_kernels(built_for: Sequence[str], capability: tuple[int, int]) -> bool:
    """Whether a build with code for these architectures (`sm_86`, `compute_90`) runs on a GPU of this capability.

    Code for sm_XY runs on X.Y and later minors of X; compute_XY is compiled on the spot for X.Y and everything later; a letter
    at the end binds code to that architecture alone. A build for other makers' GPUs (`gfx90a`) is not judged.
    """
    codes = [found for name in built_for if (found := re.fullmatch(r"(sm|compute)_(\d+)(\d)([a-z]?)", name))]
    for kind, major, minor, bound in (code.groups() for code in codes):
        first = (int(major), int(minor))
        if first == capability or (not bound and first <= capability and (kind == "compute" or first[0] == capability[0])):
            return True
    return not codes


def _choose_precision(name: str, device: torch.device) -> tuple[Precision, str]:
    match name:
        case "auto":
            if _has_fast_bf16(device):
                return "bf16", "the device supports it"
            offer = "; --set train.precision=fp16 is several times as fast here" if _has_fast_fp16(device) else ""
            return "fp32", f"the device has no fast bf16{offer}"
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
            return "fp32", "as given"


def tf32(compute: Compute) -> dict[str, bool]:
    """Whether float32 convolutions and matrix products round their factors to TF32 (10 bits): only GPUs from 8.0 (Ampere) on can.

    segctl sets both alike (`Compute.set_products`); torch's own default would round convolutions alone.
    """
    device = compute.device
    there = compute.wants_tf32 and device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)
    return {"convolutions": there, "products": there}


def _has_fast_fp16(device: torch.device) -> bool:
    """Whether the device multiplies matrices in fp16 far faster than in fp32: CUDA GPUs since 7.0, such as T4 and RTX 20xx."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (7, 0)


def _has_fast_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):  # neither is public; either may be missing
        probe = getattr(torch.cpu, name, None)
        if probe is not None and probe():
            return True
    return False
