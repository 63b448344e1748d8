"""Networks from Hugging Face `transformers`: a folder that `save_pretrained` wrote, or a name on the hub.

There are two kinds: networks that return logits per class (SegFormer, UperNet, DPT, ...), and networks that return masks and the
classes of the masks (MaskFormer, Mask2Former), whose probability of a class is the sum over masks of class times mask.
"""

import hashlib
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segctl.errors import InputError, first_line
from segctl.files import file_sha256
from segctl.models.external.foreign import IMAGENET_MEAN, IMAGENET_STD, Facts, ForeignNetwork, class_order

PREFIX = "hf:"
FILES = ["config.json", "preprocessor_config.json", "*.safetensors", "*.safetensors.index.json"]
SMALLEST = 1e-6
"""Smaller probabilities are raised to this before their logarithm."""


class SemanticMasks(nn.Module):
    """Masks and their classes -> log-probabilities per pixel (B, C, h, w), as MaskFormer reads them (arXiv:2107.06278)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        output = self.net(pixel_values=images)
        classes = output.class_queries_logits.float().softmax(-1)[..., :-1]
        maps = torch.einsum("bqc,bqhw->bchw", classes, output.masks_queries_logits.float().sigmoid())
        return F.normalize(maps, p=1.0, dim=1).clamp(min=SMALLEST).log()


def load_hugging_face(source: str, class_names: Sequence[str]) -> tuple[ForeignNetwork, str]:
    """The network at `hf:ORG/NAME` or in a folder, on the CPU, and a hash of its weights. Raises InputError."""
    transformers = _transformers()
    folder = _folder(source.removeprefix(PREFIX))
    config = _read(folder / "config.json")
    kind = _kind(config, source)
    try:
        net = getattr(transformers, kind).from_pretrained(folder, local_files_only=True).eval()
    except Exception as error:  # transformers raises many kinds
        reason = first_line(error)
        raise InputError(
            f"cannot load the network at '{source}': {reason}", "it must be one for semantic segmentation"
        ) from error
    names = [name for _, name in sorted((int(index), name) for index, name in net.config.id2label.items())]
    wrapped = SemanticMasks(net) if kind.endswith("UniversalSegmentation") else net
    tap = "" if isinstance(wrapped, SemanticMasks) else _classifier(net, len(names))
    order = class_order(names, class_names, f"'{source}'")
    return ForeignNetwork(wrapped, _facts(folder, names), class_names, order, tap), _digest(folder)


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise InputError(
            "a teacher from Hugging Face needs the package 'transformers'", 'install it with `pip install "segctl[hf]"`'
        ) from error


def _folder(name: str) -> Path:
    """A local folder, or the folder of the hub's files in this machine's cache. Raises InputError."""
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=FILES))
    except Exception as error:  # the hub's errors change with the HTTP library beneath it
        reason = first_line(error)
        raise InputError(f"cannot get '{PREFIX}{name}': {reason}", "give a local folder that save_pretrained wrote") from error


def _kind(config: dict[str, Any], source: str) -> str:
    """The loader of transformers for this network, by its architecture in the configuration. Raises InputError."""
    saved_as = " ".join(config.get("architectures") or [])
    if "ForSemanticSegmentation" in saved_as:
        return "AutoModelForSemanticSegmentation"
    if "ForUniversalSegmentation" in saved_as or "ForInstanceSegmentation" in saved_as:
        return "AutoModelForUniversalSegmentation"
    raise InputError(
        f"'{source}' is no network for semantic segmentation: its architecture is {saved_as or 'not named'}",
        "give one whose architecture ends in ForSemanticSegmentation or ForUniversalSegmentation",
    )


def _classifier(net: nn.Module, classes: int) -> str:
    """The name of the last 1×1 convolution to the classes, auxiliary ones left out; its input is the features. Empty if none."""
    pixelwise = [(name, x) for name, x in net.named_modules() if isinstance(x, nn.Conv2d) and x.kernel_size == (1, 1)]
    found = [name for name, module in pixelwise if module.out_channels == classes and "auxiliary" not in name]
    return found[-1] if found else ""


def _facts(folder: Path, names: list[str]) -> Facts:
    """The class names, and the image processor's mean and standard deviation for pixels in 0 to 1."""
    path = folder / "preprocessor_config.json"
    processor = _read(path) if path.is_file() else {}
    return Facts(names, processor.get("image_mean", IMAGENET_MEAN), processor.get("image_std", IMAGENET_STD))


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read '{path}': {error}", "give a folder that save_pretrained wrote") from error
    if not isinstance(tree, dict):
        raise InputError(f"cannot read '{path}': it holds no mapping", "give a folder that save_pretrained wrote")
    return tree


def _digest(folder: Path) -> str:
    """One sha256 over the weight files, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        total.update(bytes.fromhex(file_sha256(path)))
    return total.hexdigest()
