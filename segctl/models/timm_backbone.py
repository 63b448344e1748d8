"""Backbones of timm: a model name -> a list of feature maps. The only file that knows timm.

Strides, layout of the maps and image sizes of a name are found by running it once without memory, on torch's meta device. What
timm announces is not trusted: a backbone that would fail at the first odd-sized image is refused here.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segctl.errors import InputError, did_you_mean, first_line
from segctl.models.backbone import Backbone
from segctl.models.external.hub import cached_weights, hub_address, is_gated, why_unreachable
from segctl.models.external.weights import Rename, fill_backbone
from segctl.models.tracing import tracing
from segctl.runtime.synced_norm import SyncedBatchNorm

Options = tuple[tuple[str, Any], ...]
"""Keyword arguments of timm.create_model, beside the name."""

OUTPUT_STRIDES = (8, 16, 32)
"""Strides that a convolutional network may be dilated to."""
MULTIPLES = ((1, 32), (14,))
"""What images are padded to a multiple of, tried in this order. 14 is the side of a patch of many transformers."""
PROBE_SIZES = ((97, 130), (1, 1))
"""Height and width of the images that a network is tried with: an odd size, and a tiny one."""
RELAXED_SIZES: tuple[Options, ...] = ((), (("strict_img_size", False),), (("dynamic_img_size", True),))
"""Options by which convolutional networks, windowed and plain transformers take images of any size, tried in this order."""

NO_SUCH_MAPS = (TypeError, AssertionError, RuntimeError, ValueError, AttributeError)
"""What timm raises for a network that cannot be cut or dilated: it has no single error for that, and these were all seen."""

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
    bands: int = 3
    """How many its images have."""


class TimmBackbone(Backbone):
    """A timm network cut to its feature maps; `net` is timm's own module, whose names of weights are in every checkpoint."""

    def __init__(self, name: str, net: nn.Module, fit: Fit) -> None:
        super().__init__()
        config: Any = net.pretrained_cfg
        self.net = net
        self.name = name
        self.fit = fit
        self.channels = fit.channels
        self.strides = fit.strides
        self.mean = _repeated(config["mean"], fit.bands)
        self.std = _repeated(config["std"], fit.bands)
        self._multiple = fit.multiple
        self._channels_last = fit.channels_last

    def forward(self, images: Tensor) -> list[Tensor]:
        """float (B, N, H, W), normalised -> maps (B, channels[i], ⌈H/strides[i]⌉, ⌈W/strides[i]⌉), finest first."""
        height, width = images.shape[-2:]
        # Some networks add or window maps of several strides and need sides that are a multiple: pad, and cut the maps back.
        below, right = -height % self._multiple, -width % self._multiple
        padded = self._multiple > 1 if tracing() else bool(below or right)
        with _padding_in_whole_numbers() if tracing() else nullcontext():
            maps: list[Tensor] = self.net(F.pad(images, (0, right, 0, below)) if padded else images)
        if self._channels_last:
            maps = [x.permute(0, 3, 1, 2) for x in maps]
        if padded:
            maps = [x[..., : (height + s - 1) // s, : (width + s - 1) // s] for x, s in zip(maps, self.strides, strict=True)]
        return maps

    def load_weights(self, file: Path) -> None:
        import timm

        if not file.is_file():
            near = did_you_mean(str(file), ["timm", "none"])
            raise InputError(f"model.weights: no file at '{file}'{near}", "give timm, none, or a file of backbone weights")
        with torch.device("meta"):  # only for the names of its weights
            whole = timm.create_model(self.name)
        self.take_weights(file, whole.state_dict())

    def take_weights(self, file: Path, known: Iterable[str], rename: Rename = dict) -> None:
        """Take a file's weights, `known` being the names of the whole network. Raises InputError if they do not fit."""
        problem, self.note = fill_backbone(self.net, known, file, rename)
        if problem:
            raise InputError(
                f"model.weights: '{file}' does not fit '{self.name}': {problem}",
                f"give a file of timm's '{self.name}', or `--set model.weights=none`",
            )


@contextmanager
def _padding_in_whole_numbers() -> Iterator[None]:
    """Inside this block, timm computes TensorFlow's padding, which depends on a map's side, without `ceil` and `max`.

    With those, the sides of later maps become expressions of many lines, on which torch's tracer spends minutes.
    """
    from timm.layers import padding

    of_timm: Any = padding.get_same_padding

    def same_padding(side: Any, kernel_size: int, stride: int, dilation: int) -> Any:
        reach = (kernel_size - 1) * dilation + 1
        if reach < stride:
            return of_timm(side, kernel_size, stride, dilation)
        return (side + stride - 1) // stride * stride - side + reach - stride

    place: Any = padding
    place.get_same_padding = same_padding
    try:
        yield
    finally:
        place.get_same_padding = of_timm


class _SyncedBatchNormAct(SyncedBatchNorm):
    """timm's batch norm with an activation behind it."""

    drop: nn.Module
    act: nn.Module

    def forward(self, input: Tensor) -> Tensor:
        """(B, D, h, w) -> the same, normalised, perhaps dropped out, and activated."""
        found: Tensor = self.act(self.drop(super().forward(input)))
        return found


def synchronised(module: nn.Module, apart: Collection[nn.Module] = ()) -> None:
    """Give the module batch norms, for timm's own kinds too, that take statistics over the images of all processes; in place.

    apart: modules inside it that keep theirs.  Names and shapes of weights stay as they are.
    """
    from timm.layers.norm_act import BatchNormAct2d

    for name, child in module.named_children():
        if any(child is other for other in apart):
            continue
        if isinstance(child, BatchNormAct2d):
            synced = _SyncedBatchNormAct.of(child)
            synced.drop, synced.act = child.drop, child.act
            setattr(module, name, synced)
        elif isinstance(child, nn.BatchNorm2d) and not isinstance(child, SyncedBatchNorm):
            setattr(module, name, SyncedBatchNorm.of(child))
        else:
            synchronised(child, apart)


def fused(model: nn.Module) -> nn.Module:
    """A copy in eval mode whose re-parameterised blocks (RepVit, MobileOne, FastViT and their kin) are one convolution each.

    Outputs are the model's own in eval mode, but for rounding. A network without such blocks is only copied.
    """
    from timm.utils.model import reparameterize_model

    copy: nn.Module = reparameterize_model(deepcopy(model).eval())
    return copy


def is_plain_convolution(module: nn.Module) -> bool:
    """Whether a module is a convolution that applies its weights as they are, torch's own or timm's with TensorFlow's padding."""
    from timm.layers.conv2d_same import Conv2dSame

    return type(module) in (nn.Conv2d, Conv2dSame)


def padded_before(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """Maps (B, D, h, w) as a plain convolution pads them before its own padding: TensorFlow's, if it is timm's."""
    from timm.layers.conv2d_same import Conv2dSame
    from timm.layers.padding import pad_same

    if not isinstance(conv, Conv2dSame):
        return maps
    padded: Tensor = pad_same(maps, list(conv.kernel_size), list(conv.stride), list(conv.dilation))
    return padded


def behind_timm_norm(norm: nn.Module) -> nn.Module | None:
    """What timm's batch norm with an activation does in eval mode after it has normed, as a module; None for other modules."""
    from timm.layers.norm_act import BatchNormAct2d

    return nn.Sequential(norm.drop, norm.act) if type(norm) is BatchNormAct2d else None


def build_backbone(
    name: str,
    output_stride: int,
    weights: str,
    stages: int | None = None,
    changes: Options = (),
    *,
    bands: int = 3,
    final_norm: bool = False,
) -> TimmBackbone:
    """The timm network `name` with a last map of `output_stride`; only weights "timm" may download. Raises InputError.

    weights: "timm" (ImageNet's, by timm), "none" (random), or the path of a file with backbone weights.
    stages: keep this many maps, finest first, and no layer behind the last of them; None keeps all.
    changes: options of timm that make another network of it, such as another stem.
    final_norm: apply a plain transformer's last norm to its maps.
    bands: how many its images have. Weights for RGB are adapted as timm does it: those of the first layer are summed for one
    band, and repeated in turn and scaled by 3 / bands for several.
    """
    _check_name(name)
    if final_norm:
        if not has_final_norm(name):
            raise InputError(
                f"model.final_norm: got true, but '{name}' has no norm behind its last block, as plain transformers have",
                "use `--set model.final_norm=false`",
            )
        changes = (*changes, ("feature_cls", _normed_maps()))
    fit = _fit(name, output_stride, stages, changes)
    if bands != 3:
        return _for_bands(name, replace(fit, bands=bands), weights)
    if weights == "timm":
        backbone = TimmBackbone(name, _with_timm_weights(name, fit), fit)
        backbone.weights_file = _timm_file(name)
        backbone.license = timm_license(name)
        return backbone
    backbone = TimmBackbone(name, _create(name, fit.options), fit)
    if weights != "none":
        backbone.weights_file = Path(weights).expanduser()
        backbone.load_weights(backbone.weights_file)
        backbone.license = _license_of_file(name)
    return backbone


def _for_bands(name: str, fit: Fit, weights: str) -> TimmBackbone:
    """The network for images of other bands than RGB. Raises InputError if its first layer cannot be adapted."""
    try:
        backbone = TimmBackbone(name, _create(name, fit.options, in_chans=fit.bands), fit)
    except NO_SUCH_MAPS as error:
        raise InputError(
            f"model.backbone: '{name}' takes only RGB images, got images of {fit.bands} bands",
            "use another, such as resnet18d, or prepare the data with three --bands",
        ) from error
    if weights == "none":
        return backbone
    from timm.models import adapt_input_conv

    if weights == "timm":
        net, backbone.weights_file = _with_timm_weights(name, fit), _timm_file(name)
        backbone.license = timm_license(name)
    else:
        rgb = TimmBackbone(name, _create(name, fit.options), replace(fit, bands=3))
        backbone.weights_file = Path(weights).expanduser()
        rgb.load_weights(backbone.weights_file)
        backbone.license = _license_of_file(name)
        net, backbone.note = rgb.net, rgb.note
    state, own = net.state_dict(), backbone.net.state_dict()
    for layer in [layer for layer, value in state.items() if value.shape != own[layer].shape]:
        state[layer] = adapt_input_conv(fit.bands, state[layer])
    backbone.net.load_state_dict(state)
    return backbone


def _repeated(values: Sequence[float], bands: int) -> tuple[float, ...]:
    """Three numbers, in turn, for as many bands as there are."""
    return tuple(float(values[index % len(values)]) for index in range(bands))


def _create(name: str, options: Options, **pretrained: Any) -> nn.Module:
    """timm's network of feature maps, without layers that none of them needs."""
    import timm

    net: Any = timm.create_model(name, features_only=True, **dict(options), **pretrained)
    if type(net).__name__ in ("EfficientNetFeatures", "MobileNetV3Features"):
        # timm cuts every other family itself. A stage counts the blocks before its map.
        net.blocks = net.blocks[: max(map(itemgetter("stage"), net.feature_info.get_dicts()))]
    return cast("nn.Module", net)


@cache
def _normed_maps() -> type[nn.Module]:
    """timm's wrapper that makes feature maps of a transformer, its last norm applied to each of them."""
    from timm.models._features import FeatureGetterNet

    class NormedMaps(FeatureGetterNet):
        def __init__(self, model: nn.Module, out_indices: Any = 4, output_fmt: str = "NCHW") -> None:
            super().__init__(model, out_indices, output_fmt=output_fmt, norm=True)

    return NormedMaps


@cache
def has_final_norm(name: str) -> bool:
    """Whether a network of timm is a plain transformer with a norm behind its last block."""
    try:
        with torch.device("meta"):
            plain, normed = _create(name, ()), _create(name, (("feature_cls", _normed_maps()),))
    except NO_SUCH_MAPS:
        return False
    norm = getattr(normed.model, "norm", None) if isinstance(normed, type(plain)) else None
    return isinstance(norm, nn.Module) and any(True for _ in norm.parameters())


def own_stride(name: str) -> int:
    """The stride of the last map of a timm network as it is, not dilated. Raises InputError where it has none."""
    _check_name(name)
    stride = _last_stride(name, ())
    if stride is None:
        raise InputError(f"model.backbone: '{name}' gives no feature maps", "use another, such as resnet18d")
    return stride


def timm_license(name: str) -> str:
    """The licence of timm's weights for a network, such as `apache-2.0`; `unstated` where timm names none."""
    import timm

    config: Any = timm.get_pretrained_cfg(name)
    return str(getattr(config, "license", None) or "unstated")


def _license_of_file(name: str) -> str:
    """What is known of the licence of a local file with weights of a network."""
    return f"unknown, because they come from a file (timm's own: {timm_license(name)})"


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
def _fit(name: str, output_stride: int, stages: int | None, changes: Options) -> Fit:
    """The plainest way to get maps of the wanted stride from images of any size. Raises InputError if there is none."""
    options = _stride_options(name, output_stride, (*_stage_options(name, stages), *changes))
    reason: Exception | None = None
    for relaxed, multiple in [
        (relaxed, multiple) for multiples in MULTIPLES for relaxed in RELAXED_SIZES for multiple in multiples
    ]:
        try:
            return _probe(name, (*options, *relaxed), multiple)
        except Exception as error:  # each network fails in its own way on sizes that it was not made for
            reason = error
    raise InputError(
        f"model.backbone: '{name}' takes only images of certain sizes, wanted a backbone for any size",
        "use a convolutional one, such as resnet18d or mobilenetv2_100"
        + (", or sam2_hiera_tiny, which has the same blocks" if name.startswith("hiera_") else ""),
    ) from reason


def _probe(name: str, options: Options, multiple: int) -> Fit:
    """Run the network on odd and tiny images, without memory; raises whatever it raises if it does not fit."""
    with torch.device("meta"), torch.no_grad():
        net = _create(name, options).eval()
        for norm in (layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)):
            setattr(norm, "forward", _unchanged)  # noqa: B010  batch norm changes no shape, and takes most of the time here
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
    """Any shape -> the same tensor."""
    return x


def _layout(shapes: list[tuple[int, ...]], channels: tuple[int, ...]) -> str:
    """`BDHW` or `BHWD`, by where the channels stand in the maps' shapes; empty for other maps."""
    if any(len(shape) != 4 for shape in shapes):
        return ""
    if tuple(shape[1] for shape in shapes) == channels:
        return "BDHW"
    return "BHWD" if tuple(shape[3] for shape in shapes) == channels else ""


def _stage_options(name: str, stages: int | None) -> Options:
    """The options of timm that keep the first maps alone. Raises InputError if the network has fewer."""
    if stages is None:
        return ()
    try:
        with torch.device("meta"):
            maps = len(cast("Any", _create(name, ())).feature_info.channels())
    except NO_SUCH_MAPS:
        return ()  # `_stride_options` says that it gives no maps
    if stages > maps:
        raise InputError(
            f"model.stages: got {stages}, but '{name}' gives {maps} maps", f"use at most {maps}, or null for all of them"
        )
    return (("out_indices", tuple(range(stages))),)


def _stride_options(name: str, output_stride: int, kept: Options) -> Options:
    """`kept`, and the options of timm that give the last map this stride; none if it has it anyway. Raises InputError."""
    own = _last_stride(name, kept)
    if own is None:
        raise InputError(f"model.backbone: '{name}' gives no feature maps", "use another, such as resnet18d")
    if own == output_stride:
        return kept
    dilated = {stride: (*kept, ("output_stride", stride)) for stride in OUTPUT_STRIDES}
    if output_stride in dilated and _last_stride(name, dilated[output_stride]) == output_stride:
        return dilated[output_stride]
    others = {stride for stride, options in dilated.items() if _last_stride(name, options) == stride}
    possible = " or ".join(map(str, sorted({*others, own})))
    raise InputError(
        f"model.output_stride: got {output_stride}, but '{name}' gives a last map of stride {possible}"
        + (f" with model.stages {len(dict(kept)['out_indices'])}" if "out_indices" in dict(kept) else ""),
        "change model.output_stride, or take another model.backbone, such as resnet18d",
    )


def _last_stride(name: str, options: Options) -> int | None:
    """The stride of the last map under these options, or None if timm refuses them."""
    try:
        with torch.device("meta"):
            info: Any = _create(name, options).feature_info
        return int(info.reduction()[-1])
    except NO_SUCH_MAPS:
        return None


def _timm_file(name: str) -> Path | None:
    """The downloaded file of a network's ImageNet weights; None where timm keeps it in no cache that is known here."""
    import timm

    config: Any = timm.get_pretrained_cfg(name)
    return cached_weights(config.hf_hub_id) if config.hf_hub_id else None


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
        what = f"model.weights: cannot get the weights of '{name}' from {cached or source}"
        if cached is None and is_gated(error):
            raise InputError(
                f"{what}: their licence ({timm_license(name)}) must be accepted first",
                f"accept it at {source}/{config.hf_hub_id} and set HF_TOKEN to your token, or give a local file with "
                "`--set model.weights=PATH`",
            ) from None  # the chain may hold the token
        raise InputError(f"{what}: {first_line(error)}", WAYS_OUT) from error
