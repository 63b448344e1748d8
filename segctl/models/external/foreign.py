"""Networks that segctl did not build, behind the interface of its own: TorchScript and torch.export files, wrapped modules.

A file `teacher.json` beside `teacher.pt` says what the file itself cannot:

    {"class_names": ["road", ...], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "multiple": 32}

Without it, the classes must be the dataset's own in its own order, pixels are normalised as for ImageNet, and images keep their
size.
"""

import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import BaseModel, Field
from torch import Tensor, fx, nn

from segctl.errors import InputError, first_line
from segctl.files import archive_kind, damage_of_zip, read_record
from segctl.models.external.weights import require_finite
from segctl.models.normalize import Normalizing
from segctl.models.outputs import Prediction, upsample
from segctl.models.segmenter import Segmenter

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


LEAST_PROBABILITY = 1e-6
"""Probabilities are moved this far from 0 (and, for sigmoids, from 1) before their logarithm."""
SLACK = 0.01
"""How far the sum of a pixel's probabilities may be from 1; half precision rounds that much over many classes."""

Form = Literal["logits", "softmax", "sigmoid"]
"""What a network returns: logits, probabilities that sum to 1 at each pixel, or one probability for each class by itself."""

FORM_NOTES: dict[Form, str] = {
    "logits": "",
    "softmax": "the teacher returns probabilities that sum to 1; their logarithms are taken as its logits",
    "sigmoid": "the teacher returns a probability from 0 to 1 for each class by itself (sigmoid); log(p / (1 - p)) is taken as "
    "its logits",
}


@dataclass(frozen=True)
class Facts:
    """What must be known of a network beside its weights; class_names is None if nothing names them.

    mean, std: of its three input channels, for pixels in 0 to 1.  flips_channels: the input channels are blue, green, red.
    multiple: images are padded to a multiple of this, and the outputs are cut back.
    """

    class_names: list[str] | None = None
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    flips_channels: bool = False
    multiple: int = 1


class ForeignNetwork(Normalizing):
    """Any module that takes normalised float (B, 3, H, W) and returns logits, called as a Segmenter is; never trained.

    It may return a tensor, a sequence of main logits and then auxiliary ones, a mapping with `logits` or `out` (and `aux`), or
    an object with `logits`; `recognise` finds out whether these are probabilities instead. order: the places, among its channels,
    of the classes asked for. tap: the name of the submodule whose input is taken as features; empty if there is none. advice:
    what to do if it cannot take an image.
    """

    order: Tensor

    def __init__(
        self,
        net: nn.Module,
        facts: Facts,
        class_names: Sequence[str],
        order: Sequence[int],
        tap: str = "",
        advice: str = "export it for any batch, height and width (dynamic shapes)",
    ) -> None:
        super().__init__()
        self.net = net
        self.class_names = list(class_names)
        self.num_classes = len(self.class_names)
        self.remember_pixels(facts.mean, facts.std)
        self.register_buffer("order", torch.tensor(order))
        self.channels = len(facts.class_names or class_names)
        self.form: Form = "logits"
        self.multiple = facts.multiple
        self._flips_channels = facts.flips_channels
        self._advice = advice
        self._features: Tensor | None = None
        if tap:
            net.get_submodule(tap).register_forward_pre_hook(self._keep_features)
        self.training = False

    def train(self, mode: bool = True) -> "ForeignNetwork":
        """Stay in eval: exported programs have one mode only, and a teacher needs no other."""
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ForeignNetwork":
        """Move the network. An exported program names the device of the tensors that it makes, so the name moves too."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for part in self.net.modules():
            if isinstance(part, fx.GraphModule):
                _set_device(part, self.order.device)
        return self

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) of red, green, blue -> float32 (B, 3, H, W) in the network's own order of channels."""
        return super().normalize(images.flip(-1) if self._flips_channels else images)

    def recognise(self, image: Tensor) -> str:
        """Find out from one image, uint8 (1, H, W, 3), whether the network returns logits or probabilities.

        Returns a sentence for the user, empty for logits. A photograph is needed: of a black image, all logits may lie in 0 to 1.
        Raises InputError as `forward` does.
        """
        self.form = "logits"
        logits, _ = main_and_aux(self._run(self._padded(self.normalize(image))))
        self.form = form_of(logits)
        return FORM_NOTES[self.form]

    def forward(self, images: Tensor) -> Prediction:
        """images: normalised float (B, 3, H, W). Raises InputError if the network fails on them or has other channels."""
        padded = self._padded(images)
        logits, aux_logits = main_and_aux(self._run(padded))
        features, self._features = self._features, None
        if logits.shape[1] != self.channels:
            raise InputError(
                f"the network returns {logits.shape[1]} channels, wanted {self.channels}, one for each class",
                "give a network with one channel for background and one for foreground"
                if logits.shape[1] == 1
                else "name its classes, in its own order, in a .json file of the same name beside it",
            )
        return Prediction(
            self._as_logits(self._cut(logits, padded, images))[:, self.order],
            None if aux_logits is None else self._as_logits(self._cut(aux_logits, padded, images))[:, self.order],
            None if features is None else self._cut(features, padded, images),
        )

    def _padded(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> sides that are a multiple of `multiple`, filled with the mean colour below and on the right."""
        below, right = (-side % self.multiple for side in images.shape[-2:])
        return F.pad(images, (0, right, 0, below)) if below or right else images

    def _cut(self, maps: Tensor, padded: Tensor, images: Tensor) -> Tensor:
        """The part of maps (B, D, h, w) of the padded images that lies over the images."""
        if padded is images or maps.ndim != 4:
            return maps
        height, width = images.shape[-2:]
        rows, columns = height * maps.shape[-2] / padded.shape[-2], width * maps.shape[-1] / padded.shape[-1]
        if rows.is_integer() and columns.is_integer():
            return maps[..., : int(rows), : int(columns)]
        # The image ends inside a cell of the map: cut at the pixel, or the rest would be stretched by a part of a cell.
        return upsample(maps, (padded.shape[-2], padded.shape[-1]))[..., :height, :width]

    def _as_logits(self, found: Tensor) -> Tensor:
        """Logits (B, C, h, w) of what the network returned: the logarithm of probabilities, or of their odds."""
        match self.form:
            case "logits":
                return found
            case "softmax":
                return found.float().clamp(min=LEAST_PROBABILITY).log()
            case "sigmoid":
                return found.float().clamp(LEAST_PROBABILITY, 1 - LEAST_PROBABILITY).logit()

    def _run(self, images: Tensor) -> Any:
        """The network's own output for images float32 (B, 3, H, W). Any error but a lack of memory becomes an InputError."""
        try:
            return self.net(images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a stranger's program may raise any error
            reason = own_reason(error)
            wanted = re.search(r"to have (\d+) channels, but got 3", reason)
            if wanted:
                raise InputError(
                    f"the network takes images of {wanted[1]} channels, wanted 3 (red, green, blue): {reason}",
                    "give a network for RGB images",
                ) from error
            if "on the same device" in reason:
                raise InputError(
                    f"the network makes tensors on another device than {images.device}, most likely on the one where it was "
                    f"traced: {reason}",
                    f"trace it on {images.device.type}, use torch.export or torch.jit.script instead, or --device cpu",
                ) from error
            if re.search("Half|BFloat16|float16", reason):
                raise InputError(
                    f"the network computes in half precision and cannot take float32 images: {reason}",
                    "save it in float32: call `.float()` on the network before it is scripted or exported",
                ) from error
            raise InputError(
                f"the network cannot take images of {tuple(images.shape)}: {reason}",
                self._advice,
            ) from error

    def _keep_features(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        """A hook before the classifier: keeps its first input (B, D, h, w)."""
        self._features = inputs[0]


def _set_device(program: fx.GraphModule, device: torch.device) -> None:
    """Let an exported program make its tensors on this device, and move those that it holds beside parameters and buffers."""

    def moved(value: Any) -> Any:
        return device if isinstance(value, torch.device) else value

    for node in program.graph.nodes:
        node.args, node.kwargs = fx.node.map_aggregate(node.args, moved), fx.node.map_aggregate(node.kwargs, moved)
    program.recompile()
    for name, value in vars(program).items():
        if isinstance(value, Tensor):
            setattr(program, name, value.to(device))


def own_reason(error: Exception) -> str:
    """The line of an error that says what went wrong: TorchScript puts its own trace first, so there it is the last one."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    if len(lines) > 1 and "TorchScript" in lines[0]:
        return lines[-1].removeprefix("RuntimeError: ")
    return first_line(error)


def form_of(found: Tensor) -> Form:
    """Whether a network's output (B, C, h, w) for a photograph holds logits or probabilities."""
    values = found.detach().float()
    if not (values.numel() and bool((values >= 0).all()) and bool((values <= 1 + SLACK).all())):
        return "logits"
    if bool(((values.sum(1) - 1).abs() <= SLACK).all()):
        return "softmax"
    return "sigmoid" if bool((values <= 1).all()) else "logits"


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
    if not isinstance(found, Tensor) or found.ndim != 4 or not found.is_floating_point():
        got = f"{tuple(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else type(output).__name__
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


def load_program(path: Path, class_names: Sequence[str], *, trusted: bool = False) -> ForeignNetwork:
    """The network in a TorchScript or torch.export file, on the CPU.

    Such a file is a program, and reading it may run its code, so it is refused unless the caller says that it is `trusted`.
    Raises InputError.
    """
    kind = "TorchScript" if archive_kind(path) == "torchscript" else "torch.export"
    if not trusted:
        raise InputError(
            f"'{path}' is a {kind} program, and reading it may run any code that it contains",
            "add --trust-program if you trust whoever made it; a file of plain weights (--teacher-preset) runs no code",
        )
    facts = read_facts(path.with_suffix(".json"))
    if damage := damage_of_zip(path):
        raise InputError(f"'{path}' is damaged: {damage}", "copy it again, or write it again")
    try:
        if kind == "TorchScript":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # its advice to export is for the author
                net = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
        else:
            net = torch.export.load(path).module()
    except Exception as error:  # either loader raises many kinds
        raise InputError(
            f"cannot load the program in '{path}': {own_reason(error)}", "write it again with this version of torch"
        ) from error
    require_finite(dict(net.named_parameters()), path)
    return ForeignNetwork(net, facts, class_names, _order_of(facts, class_names, path))


def _order_of(facts: Facts, class_names: Sequence[str], path: Path) -> list[int]:
    if facts.class_names is None:
        return list(range(len(class_names)))
    return class_order(facts.class_names, class_names, f"'{path}'")


class _GivenFacts(BaseModel):
    """The fields of the .json file beside a program; pixels count from 0 to 1."""

    class_names: list[str] | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    multiple: int = Field(1, ge=1, le=1024)


def read_facts(path: Path) -> Facts:
    """The .json file beside a program, or the defaults without one. Raises InputError if the file cannot be read as that."""
    if not path.is_file():
        return Facts()
    hint = "it holds class_names, mean, std and multiple, and each may be left out"
    given = read_record(path, _GivenFacts, hint)
    mean, std = given.mean, given.std
    if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise InputError(f"'{path}': mean {mean} and std {std}, wanted finite numbers, std above 0", hint)
    if max(mean + std) > 1 or min(mean) < 0:
        raise InputError(
            f"'{path}': mean {mean} and std {std} are not those of pixels from 0 to 1",
            "pixels count from 0 to 1 here: divide mean and std by 255",
        )
    return Facts(given.class_names, mean, std, multiple=given.multiple)
