"""A network's file, `model.safetensors`: its weights, and in the header its run and its class names.

    __metadata__: {"segctl": {"run": <the preset as JSON>, "class_names": [...], "checksum": <XXH3 of all the rest>}}
                  and "pixels" for pictures that are not 8-bit colour: how their bands are scaled, see `data.files.bands`

Any library of safetensors reads the weights, and none runs code from the file. Up to version 0.1 the file was a `model.pt`,
`{"run": ..., "class_names": [...], "weights": <state dict>}` by torch.save; it is still read, and a run's best.pt still is one.
Both are written whole or not at all.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from segctl.errors import ArgumentError, InputError
from segctl.files import write_whole
from segctl.models.external.weights import dense, first_misfit, meaningless, not_finite, read_safetensors, unpickled
from segctl.models.segmenter import Segmenter
from segctl.pixel_types import PixelType, pixel_type_of
from segctl.runs import MODEL_FILE, MODEL_HEADER, RunFolder
from segctl.schema.models import ModelSpec
from segctl.schema.run import TrainRun

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
    pixels: dict[str, Any] | None = None
    """How the bands of picture files become those of the images, as JSON; None for 8-bit colour."""

    @property
    def bands(self) -> int:
        """How many bands the pictures have that the network takes."""
        mean = self.weights.get("pixel_mean")
        return 3 if mean is None or mean.ndim != 4 else mean.shape[1]

    @property
    def pixel_type(self) -> PixelType:
        """The type of the images that the network takes."""
        return pixel_type_of(self.pixels)

    @property
    def is_backbone(self) -> bool:
        """Whether `segctl pretrain` made it: its backbone has learnt, and its head is only a probe."""
        return "pretrain" in self.run

    def require_head(self) -> None:
        """Raise InputError for the file of a pretrained backbone, where a whole network is wanted."""
        if self.is_backbone:
            raise InputError(
                f"'{self.path}' holds a pretrained backbone without a trained head, so it can neither predict nor teach",
                f"train a network from it: `segctl train --preset PRESET --set model.weights={self.path.parent}`",
            )

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
    # Clones, because a .safetensors file takes no two tensors that share their memory.
    weights = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    write_saved(path, run.model_dump(mode="json"), list(class_names), weights, model.pixels)


def write_saved(
    path: Path, run: dict[str, Any], class_names: list[str], weights: dict[str, Tensor], pixels: dict[str, Any] | None
) -> None:
    """Write a model file from its parts, as its ending says: `.safetensors`, or else by torch.save. weights: of any shape."""
    about: dict[str, Any] = {"run": run, "class_names": class_names, **({} if pixels is None else {"pixels": pixels})}
    if path.suffix == ".safetensors":
        from safetensors.torch import save as to_bytes

        header = json.dumps({**about, "checksum": _checksum(about, weights)}, ensure_ascii=False)
        content = to_bytes(weights, {MODEL_HEADER: header})

        def write(partial: Path) -> None:
            partial.write_bytes(content)

    else:

        def write(partial: Path) -> None:
            with partial.open("wb") as handle:  # an open file, because torch writes a path's own name into the archive
                torch.save({**about, "weights": weights}, handle)

    write_whole(path, write)


def _checksum(about: dict[str, Any], weights: dict[str, Tensor]) -> str:
    """XXH3 (32 hex digits) of everything in a file: the format itself has no checksum, and a flipped bit is another weight."""
    found = xxhash.xxh3_128(json.dumps(about, sort_keys=True).encode())
    for name, tensor in sorted(weights.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def read(path: Path) -> SavedModel:
    """The model file at `path`, or inside the run folder at `path`.

    Raises InputError for anything else, for a file whose bytes changed after it was written, and for weights that are NaN or
    infinite: such a network gives masks of one class without any other sign.
    """
    file = RunFolder(path).model if path.is_dir() else path
    if not file.is_file():
        raise _nothing_there(path)
    found = read_if_saved(file)
    if found is None:
        kind = ".safetensors" if file.suffix == ".safetensors" else "PyTorch"
        raise InputError(
            f"'{file}' is a {kind} file, but not a model that segctl wrote",
            f"give a run folder or its {MODEL_FILE}; to start from a file's backbone, use `--set model.weights=PATH`",
        )
    return found


def read_if_saved(file: Path) -> SavedModel | None:
    """The model file, or None for a file of weights that segctl did not write.

    Raises InputError for any other file, for weights that are damaged or hold a number that is not finite, and for a file in the
    folder of a run that it is not of.
    """
    if not file.is_file():
        raise InputError(f"cannot read '{file}': it is not a plain file", MAKE_AGAIN)  # a pipe or a device may never end
    found = _of_safetensors(file) if file.suffix == ".safetensors" else _of_torch(file)
    if found is None:
        return None
    broken = [name for name, tensor in found.weights.items() if not_finite(tensor)]
    if broken:
        raise InputError(
            f"'{file}' cannot be used: {len(broken)} of its {len(found.weights)} weights are NaN or infinite, "
            f"the first is {broken[0]}",
            MAKE_AGAIN,
        )
    if problem := meaningless(found.weights):
        raise InputError(f"'{file}' cannot be used: {problem}", MAKE_AGAIN)
    if file == (folder := RunFolder(file.parent)).model:
        folder.require_own_model(found.run)
    return found


def _of_safetensors(file: Path) -> SavedModel | None:
    weights, header = read_safetensors(file, MAKE_AGAIN)
    if MODEL_HEADER not in header:
        return None
    try:
        about = json.loads(header[MODEL_HEADER])
        wanted = about.pop("checksum")
        changed = _checksum(about, weights) != wanted
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        changed = True
    if changed or (found := _parsed(file, about, weights)) is None:
        raise InputError(f"'{file}' is damaged: its content does not match its checksum", MAKE_AGAIN)
    return found


def _of_torch(file: Path) -> SavedModel | None:
    payload = unpickled(file, MAKE_AGAIN)
    try:
        weights = dict(payload["weights"])
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None
    return _parsed(file, payload, weights | dense({name: x for name, x in weights.items() if isinstance(x, Tensor)}, file))


def _parsed(file: Path, about: Any, weights: dict[str, Tensor]) -> SavedModel | None:
    """The model that `about` (its run and class names) and weights make; None if they are not what `save` writes."""
    try:
        spec = ModelSpec.model_validate(about["run"]["model"])
        names = [str(name) for name in about["class_names"]]
        pixels = about.get("pixels")
        if not isinstance(about["run"], dict) or not isinstance(pixels, dict | None):
            raise TypeError
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None
    return SavedModel(file, about["run"], spec, names, weights, pixels)


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
