"""The only file that knows timm: a model name -> a list of feature maps.

What a name can do (strides, layout of its maps, image sizes) is found by running it once without memory, on torch's
meta device, instead of trusting what it says: a backbone that would fail at the first odd-sized image is refused here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segctl.errors import InputError, did_you_mean, first_line
from segctl.models.external.hub import cached_weights, hub_address, why_unreachable
from segctl.models.external.weights import fill_backbone, read_backbone_file

Options = tuple[tuple[str, Any], ...]
"""Keyword arguments for timm, beside the name."""

OUTPUT_STRIDES = (8, 16, 32)
PROBE_SIZES = ((97, 130), (1, 1))
RELAXED_SIZES: tuple[Options, ...] = ((), (("strict_img_size", False),), (("dynamic_img_size", True),))
"""What convolutional networks, windowed and plain transformers need to be told to take images of any size."""

WAYS_OUT = "start from random weights with `--set model.weights=none`, or from a local file with `--set model.weights=PATH`"


@dataclass(frozen=True)
class Fit:
    """How a timm network is made and fed so that it gives maps at the wanted stride for any image."""

    options: Options
    multiple: int
    """Images are padded to a multiple of this (1 for most)."""
    channels_last: bool
    """Whether its maps are (B, H, W, D)."""
    channels: tuple[int, ...]
    strides: tuple[int, ...]


class Backbone(nn.Module):
    """A timm network cut to its feature maps.

    (B, 3, H, W) -> maps (B, channels[i], H/strides[i], W/strides[i]), finest first, for any H and W. `mean` and `std`
    are those its weights were trained with, for pixels in 0..1.
    """

    def __init__(self, net: nn.Module, fit: Fit, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.net = net
        self.channels = fit.channels
        self.strides = fit.strides
        self.mean = tuple(mean)
        self.std = tuple(std)
        self._multiple = fit.multiple
        self._channels_last = fit.channels_last

    def forward(self, images: Tensor) -> list[Tensor]:
        height, width = images.shape[-2:]
        below, right = -height % self._multiple, -width % self._multiple
        maps: list[Tensor] = self.net(F.pad(images, (0, right, 0, below)) if below or right else images)
        if self._channels_last:
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        if below or right:
            maps = [x[..., : -(-height // s), : -(-width // s)] for x, s in zip(maps, self.strides, strict=True)]
        return maps


def synchronised(module: nn.Module) -> nn.Module:
    """The module with batch norms, timm's own kinds too, whose statistics are those of all processes' images; CUDA only.

    Names and shapes of its weights stay as they are.
    """
    from timm.layers.norm_act import convert_sync_batchnorm

    converted: nn.Module = convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    return converted


def build_backbone(name: str, output_stride: int, weights: str) -> Backbone:
    """The timm network `name` with a last map of `output_stride`; only weights "timm" may download. Raises InputError.

    weights: "timm" (ImageNet's, by timm), "none" (random), or the path of a file with backbone weights.
    """
    _check_name(name)
    fit = _fit(name, output_stride)
    match weights:
        case "timm":
            net = _with_timm_weights(name, fit)
        case "none":
            net = _create(name, fit.options)
        case _:
            net = _with_file(name, fit, Path(weights).expanduser())
    config: Any = net.pretrained_cfg
    return Backbone(net, fit, config["mean"], config["std"])


def _create(name: str, options: Options, **pretrained: Any) -> nn.Module:
    import timm

    return timm.create_model(name, features_only=True, **dict(options), **pretrained)


def _check_name(name: str) -> None:
    """Refuse a name timm does not know, or a tag (`resnet18d.ra2_in1k`) that it has no weights for."""
    import timm

    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise InputError(
            f"model.backbone: timm knows no network '{name}'{did_you_mean(architecture, timm.list_models())}",
            "`timm.list_models()` in Python names them all",
        )
    if tag:
        tagged = timm.list_models(f"{architecture}.*", pretrained=True)
        if name not in tagged:
            raise InputError(
                f"model.backbone: timm has no weights '{name}', wanted '{architecture}' or one of {', '.join(tagged) or 'none'}"
            )


@cache
def _fit(name: str, output_stride: int) -> Fit:
    """The plainest way to get maps of the wanted stride from images of any size. Raises InputError where there is none."""
    options = _stride_options(name, output_stride)
    reason: Exception | None = None
    for relaxed in RELAXED_SIZES:
        for multiple in (1, 32):
            try:
                return _probe(name, (*options, *relaxed), multiple)
            except Exception as error:  # a network that was not made for these sizes fails in its own way
                reason = error
    raise InputError(
        f"model.backbone: '{name}' takes only images of certain sizes, wanted a backbone for any size",
        "use a convolutional one, such as resnet18d or mobilenetv2_100",
    ) from reason


def _probe(name: str, options: Options, multiple: int) -> Fit:
    """Run the network on odd and tiny images, without memory; whatever it raises says that it does not fit."""
    with torch.device("meta"), torch.no_grad():
        net = _create(name, options).eval()
        for norm in (layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)):
            setattr(norm, "forward", _unchanged)  # noqa: B010  it changes no shape, and costs most of the time here
        info: Any = net.feature_info
        channels, strides = tuple(info.channels()), tuple(info.reduction())
        layouts = set()
        for height, width in PROBE_SIZES:
            maps = net(torch.zeros(1, 3, height + -height % multiple, width + -width % multiple))
            layouts.add(_layout([tuple(x.shape) for x in maps], channels))
    if len(layouts) > 1 or "" in layouts:
        raise ValueError(f"its maps are not those it announces: {channels}")
    return Fit(options, multiple, layouts == {"BHWD"}, channels, strides)


def _unchanged(x: Tensor) -> Tensor:
    return x


def _layout(shapes: list[tuple[int, ...]], channels: tuple[int, ...]) -> str:
    if any(len(shape) != 4 for shape in shapes):
        return ""
    if tuple(shape[1] for shape in shapes) == channels:
        return "BDHW"
    return "BHWD" if tuple(shape[3] for shape in shapes) == channels else ""


def _stride_options(name: str, output_stride: int) -> Options:
    """What timm must be told so that the last map has that stride; nothing where it has it anyway. Raises InputError."""
    own = _last_stride(name, ())
    if own is None:
        raise InputError(f"model.backbone: '{name}' gives no feature maps", "use another, such as resnet18d")
    if own == output_stride:
        return ()
    if _last_stride(name, (("output_stride", output_stride),)) == output_stride:
        return (("output_stride", output_stride),)
    others = {stride for stride in OUTPUT_STRIDES if _last_stride(name, (("output_stride", stride),)) == stride}
    possible = " or ".join(map(str, sorted({*others, own})))
    raise InputError(
        f"model.output_stride: got {output_stride}, but '{name}' gives a last map of stride {possible}",
        "change model.output_stride, or take another model.backbone, such as resnet18d",
    )


def _last_stride(name: str, options: Options) -> int | None:
    """The stride of the last map under these options, or None where timm refuses them."""
    try:
        with torch.device("meta"):
            info: Any = _create(name, options).feature_info
        return int(info.reduction()[-1])
    except (TypeError, AssertionError, RuntimeError, ValueError, AttributeError, NotImplementedError):
        return None  # timm has no one way to say that a network cannot be cut or dilated so; these are all it was seen to raise


def _with_timm_weights(name: str, fit: Fit) -> nn.Module:
    """ImageNet weights from this machine's cache or, failing that, from the hub. Raises InputError, within seconds."""
    import timm

    config: Any = timm.get_pretrained_cfg(name)
    if config is None or not config.has_weights:
        raise InputError(f"model.weights: timm has no weights for '{name}'", WAYS_OUT)
    cached = cached_weights(config.hf_hub_id) if config.hf_hub_id and not config.custom_load else None
    source = hub_address() if config.hf_hub_id else str(config.url)
    if cached is None and (reason := why_unreachable(source)):
        raise InputError(f"model.weights: cannot download the weights of '{name}', because {reason}", WAYS_OUT)
    overlay = {"file": str(cached)} if cached else {}
    try:
        return _create(name, fit.options, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # the hub's errors change with the HTTP library beneath it
        reason = first_line(error)
        raise InputError(
            f"model.weights: cannot get the weights of '{name}' from {cached or source}: {reason}", WAYS_OUT
        ) from error


def _with_file(name: str, fit: Fit, file: Path) -> nn.Module:
    """Backbone weights from a local file. Raises InputError where it is missing, no file of weights, or of another network."""
    import timm

    if not file.is_file():
        near = did_you_mean(str(file), ["timm", "none"])
        raise InputError(f"model.weights: no file at '{file}'{near}", "give timm, none, or a file of backbone weights")
    weights = read_backbone_file(file)
    with torch.device("meta"):
        whole = timm.create_model(name)
    net = _create(name, fit.options)
    problem = fill_backbone(net, whole.state_dict(), weights)
    if problem:
        raise InputError(
            f"model.weights: '{file}' does not fit '{name}': {problem}",
            f"give a file of timm's '{name}', or `--set model.weights=none`",
        )
    return net
