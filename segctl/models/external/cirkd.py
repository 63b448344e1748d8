"""The networks of `model.family: cirkd`, as winycg/CIRKD trains them (v1, 2d8ad0f), and a reader of its .pth files.

SKD, IFVD, CWD, CIRKD, MasKD and DIST published their numbers on these networks. The backbones are timm's with another stem; what
else differs from this package's own networks stands in the classes below. Images are RGB here as everywhere: the first
convolution of a published file, which takes BGR, is turned over when it is read.
"""

import re
from pathlib import Path

from torch import Tensor, nn

from segctl.errors import InputError
from segctl.models.backbone import Backbone
from segctl.models.external.weights import StateDict
from segctl.models.heads import Head
from segctl.models.heads.cirkd import CirkdDeepLabV3Head, CirkdPSPHead
from segctl.models.outputs import CornerAlignedPrediction
from segctl.models.segmenter import DROPOUT, Segmenter
from segctl.models.timm_backbone import Options, TimmBackbone, build_backbone
from segctl.schema.models import ModelSpec

_MEAN_RGB = (122.67891434 / 255, 116.66876762 / 255, 104.00698793 / 255)
"""What dataset/cityscapes.py subtracts from pixels of 0 to 255, for pixels of 0 to 1."""
_STD = (1 / 255,) * 3
"""Its pixels are not divided."""

_STEMS: dict[str, Options] = {
    **dict.fromkeys(("resnet18", "resnet50", "resnet101"), (("stem_width", 64), ("stem_type", "deep"))),
    "mobilenetv2_100": (),
}
"""The backbones, by timm's names, and what makes them CIRKD's: a stem of three 3×3 convolutions of 64, 64 and 128 channels."""
_HEADS: dict[str, type[Head]] = {"pspnet": CirkdPSPHead, "deeplabv3": CirkdDeepLabV3Head}
_WEIGHTS = "https://github.com/winycg/CIRKD/tree/2d8ad0f"


class CirkdBackbone(TimmBackbone):
    """A timm network of feature maps with CIRKD's stem, whose pixels are only shifted by a mean."""

    def __init__(self, made: TimmBackbone) -> None:
        super().__init__(made.name, made.net, made.fit)
        self.mean, self.std = _MEAN_RGB, _STD

    def load_weights(self, file: Path) -> None:
        if not file.is_file():
            raise InputError(
                f"model.weights: no file at '{file}'",
                f"put CIRKD's own ImageNet file there ({_WEIGHTS} links it), or `--set model.weights=none`",
            )
        self.take_weights(file, self.net.state_dict(), lambda table: backbone_names(table, self.name))


class CirkdSegmenter(Segmenter):
    """Dropout of single values, torch's own initial weights in head and classifiers, and resizing with aligned corners."""

    returns = CornerAlignedPrediction

    def __init__(self, backbone: Backbone, head: Head, num_classes: int, aux: bool) -> None:
        super().__init__(backbone, head, num_classes, backbone.channels[-2] // 4 if aux else None)
        self.dropout = nn.Dropout(DROPOUT)
        if self.aux is not None:
            self.aux.dropout = nn.Dropout(DROPOUT)
        for part in (self.head, self.classifier, self.aux):
            for layer in [] if part is None else part.modules():
                if isinstance(layer, nn.Conv2d):
                    layer.reset_parameters()

    def rename(self, table: StateDict) -> StateDict:
        """The weights of a published .pth file under the names of this network; any other table as it is."""
        return network_names(table, self.backbone.name, isinstance(self.head, CirkdPSPHead))  # type: ignore[arg-type]


def build_cirkd(spec: ModelSpec, num_classes: int) -> CirkdSegmenter:
    """The network of a preset with `family: cirkd`. Raises InputError where the published code has no such network."""
    if spec.backbone not in _STEMS:
        raise InputError(f"model.backbone: got '{spec.backbone}' with family 'cirkd', wanted {', '.join(_STEMS)}")
    if spec.head not in _HEADS:
        raise InputError(f"model.head: got '{spec.head}' with family 'cirkd', wanted {' or '.join(_HEADS)}")
    if spec.output_stride != 8 or spec.stages is not None:
        raise InputError(
            f"model.output_stride: got {spec.output_stride} and stages {spec.stages} with family 'cirkd', wanted 8 and null",
            "leave both out, or take `--set model.family=timm`",
        )
    if spec.weights == "timm":
        raise InputError(
            f"model.weights: got 'timm' with family 'cirkd', whose '{spec.backbone}' timm has no weights for",
            f"give CIRKD's own ImageNet file ({_WEIGHTS} links it), or `--set model.weights=none`",
        )
    if spec.aux and spec.backbone == "mobilenetv2_100":
        raise InputError("model.aux: got true with family 'cirkd' on mobilenetv2_100, wanted false, as it was published")
    backbone = CirkdBackbone(build_backbone(spec.backbone, 8, "none", changes=_STEMS[spec.backbone]))
    if spec.weights != "none":
        backbone.weights_file = Path(spec.weights).expanduser()
        backbone.load_weights(backbone.weights_file)
    return CirkdSegmenter(backbone, _HEADS[spec.head].of(spec, backbone, None), num_classes, spec.aux)  # type: ignore[arg-type]


_STEM_NAMES = {"conv1": "conv1.0", "bn1": "conv1.1", "conv2": "conv1.3", "bn2": "conv1.4", "conv3": "conv1.6", "bn3": "bn1"}
_FIRST_LAYERS = ("conv1.weight", "features.0.0.weight")
_MOBILE_STAGES = (1, 2, 3, 4, 3, 3, 1)
"""How many blocks each stage of MobileNetV2 has; published files number the blocks through."""


def backbone_names(table: StateDict, backbone: str) -> StateDict:
    """The weights of a published ImageNet file under timm's names, its first convolution for RGB; any other table as it is.

    A prefix that all names have, such as `module.`, stays.
    """
    mobile = backbone == "mobilenetv2_100"
    marks = ("features.0.0.weight",) if mobile else ("conv1.weight", "conv2.weight", "conv3.weight", "layer1.0.conv1.weight")
    ends = [name.removesuffix(marks[0]) for name in table if name.endswith(marks[0])]
    prefix = next((end for end in ends if all(end + mark in table for mark in marks)), None)
    if prefix is None:
        return table
    rename = _mobile_name if mobile else _resnet_name
    own = {name.removeprefix(prefix): tensor for name, tensor in table.items()}
    return {prefix + rename(name): _for_rgb(name, tensor) for name, tensor in own.items()}


def _for_rgb(name: str, tensor: Tensor) -> Tensor:
    """The first convolution (D, 3, k, k) with its inputs in the other order; other tensors as they are."""
    return tensor.flip(1) if name in _FIRST_LAYERS else tensor


def _resnet_name(name: str) -> str:
    first, dot, rest = name.partition(".")
    return f"{_STEM_NAMES.get(first, first)}{dot}{rest}"


def _mobile_name(name: str) -> str:
    found = re.fullmatch(r"features\.(\d+)\.(?:conv\.)?(\d+)\.(\w+)", name)
    if found is None:
        return name
    number, layer, rest = int(found[1]), int(found[2]), found[3]
    if number == 0:
        return f"{('conv_stem', 'bn1')[layer]}.{rest}"
    stage, block = 0, number - 1
    while stage < len(_MOBILE_STAGES) and block >= _MOBILE_STAGES[stage]:
        stage, block = stage + 1, block - _MOBILE_STAGES[stage]
    layers = ("conv_dw", "bn1", "", "conv_pw", "bn2") if stage == 0 else (
        "conv_pw", "bn1", "", "conv_dw", "bn2", "", "conv_pwl", "bn3",
    )  # fmt: skip
    return f"blocks.{stage}.{block}.{layers[layer]}.{rest}"


def network_names(table: StateDict, backbone: str, pyramid: bool) -> StateDict:
    """The weights of a published network under the names of CirkdSegmenter; any other table as it is.

    pyramid: whether its head is PSPNet's.  A prefix that all names have, such as `module.`, stays.
    """
    cut = re.compile(r"(.*?\b|)pretrained\.(?:net\.)?(.*)")
    parts = {name: found for name in table if (found := cut.fullmatch(name))}
    if not parts:
        return table
    prefix = next(iter(parts.values()))[1]
    inner = backbone_names({found[2]: table[name] for name, found in parts.items()}, backbone)
    outer = {_head_name(name.removeprefix(prefix), pyramid): tensor for name, tensor in table.items() if name not in parts}
    renamed = {f"backbone.net.{name}": tensor for name, tensor in inner.items()} | outer
    return {prefix + name: tensor for name, tensor in renamed.items()}


_PSP_NAMES = (
    (r"head\.psp\.conv([1-4])\.([01])\.", lambda m: f"head.branches.{int(m[1]) - 1}.pooled.{int(m[2]) + 1}."),
    (r"head\.block\.([01])\.", lambda m: f"head.merge.{m[1]}."),
    (r"head\.classifier\.", lambda m: "classifier."),
)
_DEEPLAB_NAMES = (
    (r"head\.aspp\.b0\.([01])\.", lambda m: f"head.branches.0.{m[1]}."),
    (r"head\.aspp\.b([1-3])\.block\.([01])\.", lambda m: f"head.branches.{m[1]}.{m[2]}."),
    (r"head\.aspp\.b4\.gap\.([12])\.", lambda m: f"head.branches.4.pooled.{m[1]}."),
    (r"head\.aspp\.project\.([01])\.", lambda m: f"head.project.{m[1]}."),
    (r"head\.block\.([01])\.", lambda m: f"head.merge.{m[1]}."),
    (r"head\.block\.4\.", lambda m: "classifier."),
)
_AUX_NAMES = (
    (r"auxlayer\.block\.([01])\.", lambda m: f"aux.conv.{m[1]}."),
    (r"auxlayer\.block\.4\.", lambda m: "aux.classifier."),
)


def _head_name(name: str, pyramid: bool) -> str:
    for pattern, replacement in (*(_PSP_NAMES if pyramid else _DEEPLAB_NAMES), *_AUX_NAMES):
        renamed, count = re.subn(f"^{pattern}", replacement, name)
        if count:
            return renamed
    return name
