"""Networks that segctl did not build, behind the interface of its own: TorchScript and torch.export files, wrapped modules.

A file `teacher.json` beside `teacher.pt` says what the file itself cannot:

    {"class_names": ["road", ...], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}

Without it, the classes must be the dataset's own in its own order, and pixels are normalised as for ImageNet.
"""

import json
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segctl.errors import InputError, first_line
from segctl.models.normalize import Normalizing
from segctl.models.outputs import Prediction
from segctl.models.segmenter import Segmenter

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Facts:
    """What must be known of a network beside its weights; class_names is None if nothing names them."""

    class_names: list[str] | None = None
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD


class ForeignNetwork(Normalizing):
    """Any module that takes normalised float (B, 3, H, W) and returns logits, called as a Segmenter is; never trained.

    It may return a tensor, a sequence of main logits and then auxiliary ones, a mapping with `logits` or `out` (and `aux`), or
    an object with `logits`. order: the places, among its channels, of the classes asked for. tap: the name of the submodule
    whose input is taken as features; empty if there is none.
    """

    order: Tensor

    def __init__(self, net: nn.Module, facts: Facts, class_names: Sequence[str], order: Sequence[int], tap: str = "") -> None:
        super().__init__()
        self.net = net
        self.class_names = list(class_names)
        self.num_classes = len(self.class_names)
        self.remember_pixels(facts.mean, facts.std)
        self.register_buffer("order", torch.tensor(order))
        self.channels = len(facts.class_names or class_names)
        self._features: Tensor | None = None
        if tap:
            net.get_submodule(tap).register_forward_pre_hook(self._keep_features)
        self.training = False

    def train(self, mode: bool = True) -> "ForeignNetwork":
        """Stay in eval: exported programs have one mode only, and a teacher needs no other."""
        return self

    def forward(self, images: Tensor) -> Prediction:
        """images: normalised float (B, 3, H, W). Raises InputError if the network fails on them or has other channels."""
        logits, aux_logits = main_and_aux(self._run(images))
        features, self._features = self._features, None
        if logits.shape[1] != self.channels:
            raise InputError(
                f"the network returns {logits.shape[1]} channels, wanted {self.channels}, one for each class",
                "name its classes, in its own order, in a .json file of the same name beside it",
            )
        return Prediction(logits[:, self.order], None if aux_logits is None else aux_logits[:, self.order], features)

    def _run(self, images: Tensor) -> Any:
        try:
            return self.net(images)
        except (RuntimeError, ValueError, AssertionError) as error:
            reason = first_line(error)
            raise InputError(
                f"the network cannot take images of {tuple(images.shape)}: {reason}",
                "export it for any batch, height and width (dynamic shapes)",
            ) from error

    def _keep_features(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._features = inputs[0]


Network = Segmenter | ForeignNetwork
"""A network that can be scored and can teach."""


def main_and_aux(output: Any) -> tuple[Tensor, Tensor | None]:
    """The main logits (B, C, h, w) in what a network returned, and the first auxiliary ones or None.

    Raises InputError if there are no logits.
    """
    found: Any
    aux: Any = None
    if isinstance(output, Tensor):
        found = output
    elif isinstance(output, Mapping):
        found, aux = output.get("logits", output.get("out")), output.get("aux")
    elif isinstance(output, list | tuple) and not hasattr(output, "logits"):
        found, aux = (output[0] if output else None), (output[1] if len(output) > 1 else None)
    else:
        found = getattr(output, "logits", None)
    if not isinstance(found, Tensor) or found.ndim != 4:
        got = tuple(found.shape) if isinstance(found, Tensor) else type(output).__name__
        raise InputError(
            f"the network returns {got}, wanted logits (B, C, h, w)",
            "wrap it so that it returns its logits, or a sequence or mapping that begins with them",
        )
    return found, aux if isinstance(aux, Tensor) and aux.ndim == 4 and aux.shape[1] == found.shape[1] else None


def class_order(theirs: Sequence[str], wanted: Sequence[str], where: str) -> list[int]:
    """The place of each wanted class among theirs, by name; letter case, spaces and punctuation do not matter.

    where: the file or source, for the message. Raises InputError if they lack a class.
    """
    places = {plain_name(name): index for index, name in reversed(list(enumerate(theirs)))}
    missing = [name for name in wanted if plain_name(name) not in places]
    if missing:
        raise InputError(
            f"{where} knows {len(theirs)} classes ({', '.join(theirs)}), wanted {len(wanted)} ({', '.join(wanted)})",
            f"give a network trained on the same dataset; it lacks {', '.join(missing)}",
        )
    return [places[plain_name(name)] for name in wanted]


def plain_name(name: str) -> str:
    """Letters and digits of a class name, in lower case."""
    return "".join(letter for letter in name.lower() if letter.isalnum())


def program_kind(path: Path) -> str:
    """`torchscript`, `export`, or an empty string, by the names inside the archive."""
    if not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any("/code/" in name or name.endswith("constants.pkl") for name in names):
        return "torchscript"
    exported = any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names)
    return "export" if exported else ""


def load_program(path: Path, class_names: Sequence[str]) -> ForeignNetwork:
    """The network in a TorchScript or torch.export file, on the CPU. Raises InputError.

    Such a file is a program: give only one that you trust.
    """
    facts = read_facts(path.with_suffix(".json"))
    try:
        if program_kind(path) == "torchscript":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # its advice to export is for the author
                net = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
        else:
            net = torch.export.load(path).module()
    except Exception as error:  # either loader raises many kinds
        reason = first_line(error)
        raise InputError(f"cannot load the program in '{path}': {reason}", "write it again with this version of torch") from error
    return ForeignNetwork(net, facts, class_names, _order_of(facts, class_names, path))


def _order_of(facts: Facts, class_names: Sequence[str], path: Path) -> list[int]:
    if facts.class_names is None:
        return list(range(len(class_names)))
    return class_order(facts.class_names, class_names, f"'{path}'")


def read_facts(path: Path) -> Facts:
    """The .json file beside a program, or the defaults without one. Raises InputError if the file cannot be read as that."""
    if not path.is_file():
        return Facts()
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        names = tree.get("class_names")
        mean = tuple(map(float, tree.get("mean", IMAGENET_MEAN)))
        std = tuple(map(float, tree.get("std", IMAGENET_STD)))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"cannot read '{path}': {error}", "it holds class_names, mean and std") from error
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise InputError(
            f"'{path}': mean {mean} and std {std}, wanted three numbers each, std above 0", "pixels count from 0 to 1"
        )
    return Facts(None if names is None else [str(name) for name in names], mean, std)
