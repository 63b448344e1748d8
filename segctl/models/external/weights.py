"""Reading weights from a local file, and why they do not fit."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segctl.errors import InputError

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model", "weights")
"""Keys under which training scripts store the weights in a checkpoint; averaged weights first."""

CLASSIFIERS = ("fc.", "classifier.", "head.")
"""Prefixes of a classifier's weights. A file may hold them for any backbone, because feature maps need no classifier."""


def unpickled(file: Path) -> Any:
    """The content of a PyTorch file, tensors on the CPU; runs none of its code. Raises InputError."""
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises a dozen kinds for bytes that are no checkpoint
        raise InputError(f"cannot read '{file}': it is damaged, cut short, or no PyTorch file of plain weights") from error


def read_backbone_file(file: Path) -> dict[str, Tensor]:
    """The backbone's weights in a .safetensors or PyTorch file, under the names timm gives them. Raises InputError.

    A checkpoint of a whole network is cut to its backbone (names that begin with `backbone.`).
    """
    tensors = _tensors(file)
    for prefix in ("module.", "backbone.", "net."):
        inside = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        tensors = inside or tensors
    return tensors


def read_network_file(file: Path) -> dict[str, Tensor]:
    """A whole network's weights in a .safetensors or PyTorch file, under the names segctl gives them. Raises InputError."""
    tensors = _tensors(file)
    for prefix in ("module.", "model."):
        if all(name.startswith(prefix) for name in tensors):
            tensors = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return tensors


def fill_network(model: torch.nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Put `weights` into a whole network; returns why they do not fit, or an empty string.

    A file may lack the pixels' mean and deviation and batch norm's counters; these keep their values.
    """
    state = model.state_dict()
    spare = {name: tensor for name, tensor in state.items() if name.endswith(("num_batches_tracked", "pixel_mean", "pixel_std"))}
    problem = first_misfit(state, spare | dict(weights))
    if not problem:
        model.load_state_dict(spare | dict(weights))
    return problem


def _tensors(file: Path) -> dict[str, Tensor]:
    """The tensors in a file by name, without the WRAPPERS of training scripts. Raises InputError."""
    content = _safetensors(file) if file.suffix == ".safetensors" else unpickled(file)
    while isinstance(content, dict) and (wrapper := next((key for key in WRAPPERS if isinstance(content.get(key), dict)), "")):
        content = content[wrapper]
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise InputError(f"'{file}' holds no weights: wanted a mapping of names to tensors", "save a network's state_dict()")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"cannot read '{file}': it is damaged, cut short, or no .safetensors file") from error


def fill_backbone(net: torch.nn.Module, known: Iterable[str], weights: Mapping[str, Tensor]) -> str:
    """Put `weights` into a network of feature maps; returns why they do not fit, or an empty string.

    known: the names of the whole timm network, of which `net` is a part. Weights of its other parts are ignored. Any other name
    shows that the file is of another network; that one may hold all names of this one too, as ResNet34 does those of ResNet18.
    """
    state = net.state_dict()
    places = {_plain(name): name for name in state}
    spare = {_plain(name) for name in known}
    foreign = [name for name in weights if _plain(name) not in spare | places.keys() and not name.startswith(CLASSIFIERS)]
    if foreign:
        return f"{len(foreign)} of its {len(weights)} weights are of another network ({_some(foreign)})"
    found = {places[_plain(name)]: tensor for name, tensor in weights.items() if _plain(name) in places}
    counters = {name: tensor for name, tensor in state.items() if name.endswith("num_batches_tracked")}
    problem = first_misfit(state, counters | found)
    if not problem:
        net.load_state_dict(counters | found)
    return problem


def _plain(name: str) -> str:
    """One form of a name: timm's feature wrappers turn `blocks.0.conv` into `blocks_0.conv` or `model.blocks.0.conv`."""
    return name.removeprefix("model.").replace(".", "_")


def first_misfit(wanted: Mapping[str, Tensor], got: Mapping[str, Any]) -> str:
    """Why `got` cannot fill `wanted`: missing names, unknown names or a shape; empty if it can."""
    missing = [name for name in wanted if not isinstance(got.get(name), Tensor)]
    if missing:
        return f"{len(missing)} of {len(wanted)} weights are missing ({_some(missing)})"
    unknown = [name for name in got if name not in wanted]
    if unknown:
        return f"{len(unknown)} weights are unknown ({_some(unknown)})"
    for name, tensor in wanted.items():
        if tensor.shape != got[name].shape:
            return f"{name} is {_shape(got[name])}, wanted {_shape(tensor)}"
    return ""


def require_finite(weights: Mapping[str, Tensor], where: Path | str) -> None:
    """Refuse weights with a NaN or an infinite number: of a run that diverged, or of a damaged file. Raises InputError."""
    broken = [name for name, tensor in weights.items() if tensor.is_floating_point() and not bool(tensor.isfinite().all())]
    if broken:
        raise InputError(
            f"'{where}': {len(broken)} of {len(weights)} weights hold NaN or infinite numbers ({_some(broken)})",
            "its training diverged, or the file is damaged: give another file, or copy it again",
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "one number"
