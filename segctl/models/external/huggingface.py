"""Networks from Hugging Face `transformers`: a folder that `save_pretrained` wrote, or a name on the hub.

There are two kinds: networks that return logits per class (SegFormer, UperNet, DPT, ...), and networks that return masks and the
classes of the masks (MaskFormer, Mask2Former), whose probability of a class is the sum over masks of class times mask.
"""

import hashlib
import importlib
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segctl.errors import InputError
from segctl.files import file_sha256, read_json
from segctl.models.external.foreign import IMAGENET_MEAN, IMAGENET_STD, LEAST_PROBABILITY, Facts, ForeignNetwork, class_order
from segctl.models.external.pretrained import load_pretrained
from segctl.models.external.weights import require_usable


class SemanticMasks(nn.Module):
    """Masks and their classes -> log-probabilities per pixel (B, C, h, w), as MaskFormer reads them (arXiv:2107.06278)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        output = self.net(pixel_values=images)
        classes = output.class_queries_logits.float().softmax(-1)[..., :-1]
        maps = torch.einsum("bqc,bqhw->bchw", classes, output.masks_queries_logits.float().sigmoid())
        return F.normalize(maps, p=1.0, dim=1).clamp(min=LEAST_PROBABILITY).log()

    @classmethod
    def of(cls, net: nn.Module, images: Tensor) -> Tensor:
        """The same of a network that is not wrapped, for float (B, 3, H, W)."""
        found: Tensor = cls(net)(images)
        return found


@dataclass(frozen=True)
class HuggingFaceNetwork:
    """A network, a sha256 of its weight files, and what was assumed about it, in sentences."""

    network: ForeignNetwork
    sha256: str
    notes: tuple[str, ...]


def load_hugging_face(folder: Path, source: str, class_names: Sequence[str]) -> HuggingFaceNetwork:
    """The network in a folder, in float32 on the CPU. source: the folder, or `hf:ORG/NAME`, for sentences. Raises InputError."""
    transformers = require_transformers()
    config = read_config(folder / "config.json")
    kind = _kind(config, source)
    net = load_pretrained(
        getattr(transformers, kind), folder, source, "it must be one for semantic segmentation",
        SemanticMasks.of if kind.endswith("UniversalSegmentation") else lambda net, images: net(pixel_values=images).logits,
    )  # fmt: skip
    require_usable(net, source)
    names = [name for _, name in sorted((int(index), name) for index, name in net.config.id2label.items())]
    if all(re.fullmatch(r"LABEL_\d+", name) for name in names):
        raise InputError(
            f"'{source}': its config.json names none of its {len(names)} classes, wanted {', '.join(class_names)}",
            "write the classes into id2label in config.json, in the network's own order",
        )
    wrapped = SemanticMasks(net) if kind.endswith("UniversalSegmentation") else net
    tap = "" if isinstance(wrapped, SemanticMasks) else _classifier(net, len(names))
    order = class_order(names, class_names, f"'{source}'")
    facts, notes = _facts(folder, names, transformers, source)
    size = getattr(net.config, "image_size", None)
    own = "" if size is None else f" ({size} pixels)"
    found = ForeignNetwork(
        wrapped, facts, class_names, order, tap,
        advice=f"this architecture may take only square images, or those of its own size{own}: give a network for images of any "
        "size, such as a SegFormer",
    )  # fmt: skip
    multiple = _multiple(found, net.config)
    if multiple > 1:
        found.multiple = multiple
        notes += (
            f"the teacher sees only whole patches: images are padded to a multiple of {multiple} pixels, and outputs cut back",
        )
    return HuggingFaceNetwork(found, _digest(folder), notes)


PROBE = (97, 131)
"""Height and width of the image that shows whether a network sees its last row and column: both are prime."""


@torch.inference_mode()
def _multiple(network: ForeignNetwork, config: Any) -> int:
    """What the sides of images must be a multiple of so that the network sees every pixel; 1 for most.

    A network that cuts images into patches drops the rows and columns that fill no patch, without an error. So an image whose
    last row and column change must change the output; if it does not, the sizes of patches in the configuration are tried.
    A network that cannot take the image at all says so at the run's own images.
    """
    noise = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (1, *PROBE, 3), dtype=torch.uint8, generator=noise)
    edges = [image.clone(), image.clone()]
    edges[0][:, -1], edges[1][:, :, -1] = 255 - image[:, -1], 255 - image[:, :, -1]
    candidates = {size for each in (config, getattr(config, "backbone_config", None)) for size in _patch_sizes(each)}
    for multiple in (1, *sorted(candidates), 32):
        network.multiple = multiple
        try:
            plain, below, right = (network(network.normalize(each)).logits for each in (image, *edges))
        except InputError:
            continue
        if not torch.equal(plain, below) and not torch.equal(plain, right):
            network.multiple = 1
            return multiple
    network.multiple = 1
    return 1


def _patch_sizes(config: Any) -> list[int]:
    sizes = getattr(config, "patch_size", None)
    return [size for size in (sizes if isinstance(sizes, list | tuple) else [sizes]) if isinstance(size, int) and size > 1]


def require_transformers() -> Any:
    """The package transformers. Raises InputError where it is not installed."""
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise InputError(
            "a teacher from Hugging Face needs the package 'transformers'", 'install it with `pip install "segctl[hf]"`'
        ) from error


def _kind(config: dict[str, Any], source: str) -> str:
    """The loader of transformers for this network, by its architecture in the configuration. Raises InputError."""
    saved_as = " ".join(map(str, config.get("architectures") or []))
    if "OneFormer" in saved_as:
        raise InputError(
            f"'{source}' is a OneFormer, which needs a text beside each image; segctl gives it only images",
            "give a network that needs only images, such as a Mask2Former or SegFormer",
        )
    if "ForSemanticSegmentation" in saved_as:
        return "AutoModelForSemanticSegmentation"
    if "ForUniversalSegmentation" in saved_as or "ForInstanceSegmentation" in saved_as:
        return "AutoModelForUniversalSegmentation"
    raise InputError(
        f"'{source}' is not a network for semantic segmentation: its architecture is {saved_as or 'not named'}",
        "give one whose architecture ends in ForSemanticSegmentation or ForUniversalSegmentation; a backbone without classes "
        "teaches its features by `segctl pretrain`",
    )


def _classifier(net: nn.Module, classes: int) -> str:
    """The name of the last 1×1 convolution to the classes, auxiliary ones left out; its input is the features. Empty if none."""
    pixelwise = [(name, x) for name, x in net.named_modules() if isinstance(x, nn.Conv2d) and x.kernel_size == (1, 1)]
    found = [name for name, module in pixelwise if module.out_channels == classes and "auxiliary" not in name]
    return found[-1] if found else ""


def _facts(folder: Path, names: list[str], transformers: Any, source: str) -> tuple[Facts, tuple[str, ...]]:
    """The class names, and what the folder's image processor does with pixels; notes on what was assumed. Raises InputError."""
    facts = pixel_facts(folder, transformers)
    if facts is None:
        note = f"'{source}' has no preprocessor_config.json: its images are normalised with ImageNet's mean and deviation"
        return Facts(names), (note,)
    return replace(facts, class_names=names), ()


def pixel_facts(folder: Path, transformers: Any) -> Facts | None:
    """What the folder's image processor does with pixels; None where the folder holds no processor.

    The processor computes (pixel * rescale_factor - image_mean) / image_std, each part only where do_rescale and do_normalize
    say so, after it has turned RGB into BGR where do_flip_channel_order does. Raises InputError for a key without a meaning.
    """
    path = folder / "preprocessor_config.json"
    settings = read_config(path) if path.is_file() else {}
    if not settings and (folder / "processor_config.json").is_file():  # transformers 5 may write all processors into one file
        path = folder / "processor_config.json"
        settings = read_config(path).get("image_processor") or {}
    if not settings:
        return None
    settings = _with_defaults(settings, transformers)
    factor = _number(settings, "rescale_factor", path) if settings["do_rescale"] else 1.0
    if factor <= 0:
        raise InputError(f"'{path}': rescale_factor is {factor}, wanted a number above 0", "1/255 makes pixels count from 0 to 1")
    scale = 255 * factor
    mean, std = [0.0] * 3, [1.0] * 3
    if settings["do_normalize"]:
        mean, std = _three(settings, "image_mean", path), _three(settings, "image_std", path)
        if max(mean) > scale + 1e-6 or min(std) <= 0:
            raise InputError(
                f"'{path}': image_mean {mean} and image_std {std} do not suit pixels that the processor brings to 0 to {scale:g}",
                "give both for these pixels, image_std above 0, or correct do_rescale and rescale_factor",
            )
    # Facts counts pixels from 0 to 1, so both are divided by what the processor makes of a white pixel.
    return Facts(None, [x / scale for x in mean], [x / scale for x in std], bool(settings["do_flip_channel_order"]))


DEFAULTS = {
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": list(IMAGENET_MEAN),
    "image_std": list(IMAGENET_STD),
    "do_flip_channel_order": False,
}
"""What most image processors do."""


def _with_defaults(settings: dict[str, Any], transformers: Any) -> dict[str, Any]:
    """The processor's settings by the names of DEFAULTS, its own class's defaults for those that the file leaves out."""
    name = str(settings.get("image_processor_type") or settings.get("feature_extractor_type") or "")
    own = getattr(transformers, name.replace("FeatureExtractor", "ImageProcessor"), None)
    try:
        made = None if own is None else own(**{key: value for key, value in settings.items() if not key.endswith("_type")})
    except Exception:  # the file's own values are then read as they stand
        made = None
    if made is None:
        return DEFAULTS | {key: value for key, value in settings.items() if key in DEFAULTS}
    # A processor that never normalises (MobileViT's) has no do_normalize, or None.
    missing = {"do_rescale": False, "do_normalize": False, "do_flip_channel_order": False}
    return DEFAULTS | {key: getattr(made, key, missing.get(key, DEFAULTS[key])) for key in DEFAULTS}


def _number(settings: dict[str, Any], key: str, path: Path) -> float:
    value = settings[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise InputError(f"'{path}': {key} is {value!r}, wanted a number", "correct it, or leave it out for the processor's own")
    return float(value)


def _three(settings: dict[str, Any], key: str, path: Path) -> list[float]:
    """One number for each channel; a file may hold one for all of them, in a list or not."""
    value = settings[key]
    values = list(value) if isinstance(value, list | tuple) else [value]
    if len(values) not in (1, 3) or not all(type(x) in (int, float) and math.isfinite(x) for x in values):
        raise InputError(
            f"'{path}': {key} is {json.dumps(value)}, wanted three numbers",
            "correct it, or write do_normalize: false if the network takes pixels that are not normalised",
        )
    return [float(x) for x in values] * (3 // len(values))


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in a .json file of a repository. Raises InputError."""
    tree = read_json(path, "give a folder that save_pretrained wrote")
    if not isinstance(tree, dict):
        raise InputError(f"cannot read '{path}': it holds no mapping", "give a folder that save_pretrained wrote")
    return tree


def _digest(folder: Path) -> str:
    """One sha256 over the weight files, in the order of their names."""
    total = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.bin")]):
        total.update(bytes.fromhex(file_sha256(path)))
    return total.hexdigest()
