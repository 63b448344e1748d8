"""A network's file, `model.pt`: its run, its class names, its weights.

    {"run": <the preset as JSON>, "class_names": [...], "weights": <state dict on the CPU>}

Written whole or not at all. Read with weights_only, so opening a stranger's file runs none of its code.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segctl.errors import ArgumentError, InputError
from segctl.files import write_whole
from segctl.models.external.weights import first_misfit, not_finite, read_tables, unpickled
from segctl.models.segmenter import Segmenter
from segctl.schema.models import ModelSpec
from segctl.schema.run import TrainRun

MODEL_FILE = "model.pt"
MAKE_AGAIN = "copy it again from where it came, or train the run again"


@dataclass(frozen=True)
class SavedModel:
    """The content of a model file."""

    path: Path
    run: dict[str, Any]
    """The preset as JSON."""
    model: ModelSpec
    """The model block of the preset."""
    class_names: list[str]
    weights: dict[str, Tensor]

    @property
    def preset(self) -> str:
        """The name of the preset that it was trained by."""
        return str(self.run.get("name", "unknown"))


def save(path: Path, model: Segmenter, run: TrainRun, class_names: Sequence[str]) -> None:
    """Write a model file, whole or not at all. Equal weights give equal bytes, so a file's hash identifies the network.

    Raises ArgumentError if the number of names is not the network's number of classes.
    """
    if len(class_names) != model.num_classes:
        raise ArgumentError(f"got {len(class_names)} class names, wanted {model.num_classes}")
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    payload = {"run": run.model_dump(mode="json"), "class_names": list(class_names), "weights": weights}
    write_whole(path, lambda partial: _write(partial, payload))


def _write(partial: Path, payload: dict[str, Any]) -> None:
    with partial.open("wb") as handle:  # an open file, because torch writes a path's own name into the archive
        torch.save(payload, handle)


def read(path: Path) -> SavedModel:
    """The model file at `path`, or inside the run folder at `path`.

    Raises InputError for anything else, for a file whose bytes changed after it was written, and for weights that are NaN or
    infinite: such a network gives masks of one class without any other sign.
    """
    file = path / MODEL_FILE if path.is_dir() else path
    if not file.is_file():
        raise _nothing_there(path)
    found = read_if_saved(file)
    if found is None:
        raise InputError(
            f"'{file}' is a PyTorch file, but not a model that segctl wrote",
            f"give a run folder or its {MODEL_FILE}; to start from a file's backbone, use `--set model.weights=PATH`",
        )
    return found


def read_if_saved(file: Path) -> SavedModel | None:
    """The model file, or None for a file of weights that segctl did not write.

    Raises InputError for any other file, and for weights that are damaged or hold a number that is not finite.
    """
    if not file.is_file():
        raise InputError(f"cannot read '{file}': it is not a plain file", MAKE_AGAIN)  # a pipe or a device may never end
    if file.suffix == ".safetensors":
        read_tables(file)  # for its message about a damaged file
        return None
    payload = unpickled(file, MAKE_AGAIN)
    try:
        spec = ModelSpec.model_validate(payload["run"]["model"])
        names, weights = [str(name) for name in payload["class_names"]], dict(payload["weights"])
        if not isinstance(payload["run"], dict):
            raise TypeError
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None
    broken = [name for name, tensor in weights.items() if not_finite(tensor)]
    if broken:
        raise InputError(
            f"'{file}' cannot be used: {len(broken)} of its {len(weights)} weights are NaN or infinite, the first is {broken[0]}",
            MAKE_AGAIN,
        )
    return SavedModel(file, payload["run"], spec, names, weights)


def fill(model: Segmenter, saved: SavedModel) -> None:
    """Put the file's weights into a network. Raises InputError if some are missing or do not fit."""
    problem = first_misfit(model.state_dict(), saved.weights)
    if problem:
        raise InputError(f"'{saved.path}' is damaged: its weights do not fit its own preset: {problem}", "train it again")
    model.load_state_dict(saved.weights)


def _nothing_there(path: Path) -> InputError:
    if path.is_dir():
        return InputError(
            f"'{path}' holds no {MODEL_FILE}: it is not a run, or the run has not finished", "finish it with --resume"
        )
    return InputError(f"no run folder or model file at '{path}'", f"give a folder that `segctl train` wrote, or its {MODEL_FILE}")
