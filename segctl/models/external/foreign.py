"""Networks that segctl did not build, behind the interface of its own: TorchScript and torch.export files, wrapped modules.

A file `teacher.json` beside `teacher.pt` says what the file itself cannot:

    {"class_names": ["road", ...], "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "multiple": 32}
    {"channels": "bgr", "pixels": 255, "mean": [104.007, 116.669, 122.679], "std": [1, 1, 1], "align_corners": true}

Without it, the classes must be the dataset's own in its own order, pixels are normalised as for ImageNet, and images keep their
size. The second line is what CIRKD's published networks need (winycg/CIRKD, dataset/cityscapes.py and eval.py at 2d8ad0f).
mean and std are in the order of `channels`.
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
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, fx, nn

from segctl.errors import InputError, first_line
from segctl.files import archive_kind, damage_of_zip, read_record
from segctl.models.averaged import AveragedNetwork
from segctl.models.external.weights import require_usable
from segctl.models.normalize import Normalizing
from segctl.models.outputs import CornerAlignedPrediction, Prediction, upsample
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
    multiple: images are padded to a multiple of this, and the outputs are cut back.  align_corners: how it was trained to resize
    its logits.
    """

    class_names: list[str] | None = None
    mean: Sequence[float] = IMAGENET_MEAN
    std: Sequence[float] = IMAGENET_STD
    flips_channels: bool = False
    multiple: int = 1
    align_corners: bool = False


class ForeignNetwork(Normalizing):
    """Any module that takes normalised float (B, 3, H, W) and returns logits, called as a Segmenter is; never trained.

    It may return whatever `Answer.of` reads; `recognise` finds out whether its logits are probabilities instead. order: the
    places, among its channels, of the classes asked for. tap: the name of the submodule whose input is taken as features; if it
    is empty, features are those that the network itself returns. advice: what to do if it cannot take an image.
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
        self.returns: type[Prediction] = CornerAlignedPrediction if facts.align_corners else Prediction
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

        Returns sentences for the user, on probabilities and on the features that it returns; empty for logits alone. A photograph
        is needed: of a black image, all logits may lie in 0 to 1. Raises InputError as `forward` does.
        """
        self.form = "logits"
        answer = Answer.of(self._run(self._padded(self.normalize(image))))
        self.form = form_of(answer.logits)
        notes = [FORM_NOTES[self.form]] if FORM_NOTES[self.form] else []
        if answer.features is not None and self._features is None:
            channels, height, width = answer.features.shape[1:]
            notes.append(
                f"the teacher's {answer.where} ({channels} channels, {height}×{width}) is taken as its last classifier's input"
            )
        self._features = None
        return "; ".join(notes)

    def forward(self, images: Tensor) -> Prediction:
        """images: normalised float (B, 3, H, W). Raises InputError if the network fails on them or has other channels."""
        padded = self._padded(images)
        answer = Answer.of(self._run(padded))
        logits, aux_logits = answer.logits, answer.aux_logits
        features, self._features = answer.features if self._features is None else self._features, None
        if logits.shape[1] != self.channels:
            raise InputError(
                f"the network returns {logits.shape[1]} channels, wanted {self.channels}, one for each class",
                "give a network with one channel for background and one for foreground"
                if logits.shape[1] == 1
                else "name its classes, in its own order, in a .json file of the same name beside it",
            )
        return self.returns(
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
        aligned = self.returns is CornerAlignedPrediction
        rows, columns = height * maps.shape[-2] / padded.shape[-2], width * maps.shape[-1] / padded.shape[-1]
        if rows.is_integer() and columns.is_integer() and not aligned:
            return maps[..., : int(rows), : int(columns)]
        # The image ends inside a cell of the map: cut at the pixel, or the rest would be stretched by a part of a cell. With
        # aligned corners it always does, because the last cell's centre lies on the last pixel of the padding.
        return upsample(maps, (padded.shape[-2], padded.shape[-1]), aligned)[..., :height, :width]

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


Network = Segmenter | ForeignNetwork | AveragedNetwork
"""A network that can be scored and can teach."""


@dataclass(frozen=True)
class Answer:
    """What a network returned: logits (B, C, h, w), auxiliary logits (B, C, h', w') or None, features (B, D, h, w) or None.

    where: which part the features are, in words.
    """

    logits: Tensor
    aux_logits: Tensor | None = None
    features: Tensor | None = None
    where: str = ""

    @classmethod
    def of(cls, output: Any) -> "Answer":
        """Read a tensor, a sequence, a mapping with `logits` or `out`, or an object with `logits`.

        A sequence begins with the logits. Auxiliary logits come second and have as many channels; the first map behind the logits
        with other channels is the features. A mapping or an object calls them `aux` and `features`. Raises InputError if there
        are not logits, or if `features` are not a map of the same images.
        """
        found: Any
        aux: Any = None
        features: Any = None
        where = "output 'features'"
        if isinstance(output, Tensor):
            found = output
        elif isinstance(output, Mapping):
            found, aux, features = output.get("logits", output.get("out")), output.get("aux"), output.get("features")
        elif isinstance(output, list | tuple) and not hasattr(output, "logits"):
            found, aux = (output[0] if output else None), (output[1] if len(output) > 1 else None)
            rest = [(place, part) for place, part in enumerate(output) if place and _is_map(part) and _is_map(found)]
            other = [(place, part) for place, part in rest if part.shape[1] != found.shape[1] and len(part) == len(found)]
            place, features = other[0] if other else (0, None)
            where = f"output number {place + 1}"
        else:
            found, features = getattr(output, "logits", None), getattr(output, "features", None)
        if not _is_map(found):
            got = f"{tuple(found.shape)} of {found.dtype}" if isinstance(found, Tensor) else type(output).__name__
            raise InputError(
                f"the network returns {got}, wanted logits (B, C, h, w)",
                "wrap it so that it returns its logits, or a sequence or mapping that begins with them",
            )
        if features is not None and not (_is_map(features) and len(features) == len(found)):
            got = f"{tuple(features.shape)} of {features.dtype}" if isinstance(features, Tensor) else type(features).__name__
            raise InputError(
                f"the network's output 'features' is {got}, wanted a floating point map ({len(found)}, D, h, w)",
                "wrap it so that `features` is the input of its last classifier, or leave that output out",
            )
        return cls(found, aux if _is_map(aux) and aux.shape[1] == found.shape[1] else None, features, where)


def _is_map(part: Any) -> bool:
    return isinstance(part, Tensor) and part.ndim == 4 and part.is_floating_point()


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
    require_usable(net, path)
    return ForeignNetwork(net, facts, class_names, _order_of(facts, class_names, path))


def _order_of(facts: Facts, class_names: Sequence[str], path: Path) -> list[int]:
    if facts.class_names is None:
        return list(range(len(class_names)))
    return class_order(facts.class_names, class_names, f"'{path}'")


class _GivenFacts(BaseModel):
    """The fields of the .json file beside a program. Others are refused, because a typo would change what the network sees."""

    model_config = ConfigDict(extra="forbid")
    class_names: list[str] | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    multiple: int = Field(1, ge=1, le=1024)
    channels: Literal["rgb", "bgr"] = "rgb"
    pixels: Literal[1, 255] = 1
    align_corners: bool = False


def read_facts(path: Path) -> Facts:
    """The .json file beside a program, or the defaults without one. Raises InputError if the file cannot be read as that."""
    if not path.is_file():
        return Facts()
    hint = (
        "it holds class_names, mean, std, multiple, channels (rgb or bgr), pixels (1 or 255, the largest value of the pixels "
        "that mean and std are of) and align_corners, and each may be left out"
    )
    given = read_record(path, _GivenFacts, hint)
    if given.pixels == 255 and (given.mean is None or given.std is None):
        raise InputError(
            f"'{path}': pixels is 255 without mean and std, which are then needed", 'for no division write "std": [1, 1, 1]'
        )
    flips = given.channels == "bgr"
    mean = given.mean or (IMAGENET_MEAN[::-1] if flips else IMAGENET_MEAN)
    std = given.std or (IMAGENET_STD[::-1] if flips else IMAGENET_STD)
    if not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise InputError(f"'{path}': mean {mean} and std {std}, wanted finite numbers, std above 0", hint)
    if max(mean + std) > given.pixels or min(mean) < 0:
        raise InputError(
            f"'{path}': mean {mean} and std {std} are not those of pixels from 0 to {given.pixels}",
            'pixels count from 0 to 1 here: divide mean and std by 255, or add "pixels": 255',
        )
    if given.pixels == 255 and max(mean) <= 1 and max(mean) > 0:
        raise InputError(
            f"'{path}': mean {mean} is that of pixels from 0 to 1, but pixels is 255", 'leave out "pixels", or multiply by 255'
        )
    return Facts(
        given.class_names,
        [value / given.pixels for value in mean],
        [value / given.pixels for value in std],
        flips_channels=flips,
        multiple=given.multiple,
        align_corners=given.align_corners,
    )
