"""Reading weights from a local file, and saying why they do not fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segctl.errors import InputError


def unpickled(file: Path) -> Any:
    """What a PyTorch file holds, tensors on the CPU; runs none of its code. Raises InputError."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for bytes that are no checkpoint
        raise InputError(f"cannot read '{file}': it is damaged, cut short, or no PyTorch file of weights") from error


def first_misfit(wanted: Mapping[str, Tensor], got: Mapping[str, Any]) -> str:
    """Why `got` cannot fill `wanted`: missing names, unknown names or a shape; empty where it can."""
    missing = [name for name in wanted if not isinstance(got.get(name), Tensor)]
    if missing:
        return f"{len(missing)} of {len(wanted)} are missing ({_some(missing)})"
    unknown = [name for name in got if name not in wanted]
    if unknown:
        return f"{len(unknown)} are unknown ({_some(unknown)})"
    for name, tensor in wanted.items():
        if tensor.shape != got[name].shape:
            return f"{name} is {_shape(got[name])}, wanted {_shape(tensor)}"
    return ""


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"
