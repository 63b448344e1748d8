"""Frozen networks that give features and no classes: backbones of timm and of Hugging Face's transformers.

What must be known of one: the stride of its map and how its pixels are normalised. Where either cannot be told, it is refused.
"""

import hashlib
import inspect
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segctl.errors import InputError, first_line
from segctl.models.external.hub import repository_folder
from segctl.models.external.huggingface import pixel_facts, read_config, require_transformers
from segctl.models.external.pretrained import load_pretrained
from segctl.models.external.weights import require_usable
from segctl.models.normalize import Normalizing
from segctl.models.timm_backbone import TimmBackbone, build_backbone, has_final_norm, own_stride
from segctl.runs import HUB
from segctl.schema.pretrain import TIMM

MOST_PREFIX_TOKENS = 64
"""Class and register tokens before the patches; a larger rest shows that the stride is wrong."""
STRIDES = (4, 8, 14, 16, 32, 64)
"""Strides that are tried for a network whose configuration names no size of patches."""


class FeatureNetwork(Normalizing, ABC):
    """A frozen network cut to one map of features; never trained.

    stride: input pixels per pixel of the map.  channels: of the map.  notes: what was found out about it, in sentences.
    license: of its weights, as their publisher names it; empty where it is not known.
    """

    stride: int
    channels: int
    notes: tuple[str, ...] = ()
    license: str = ""

    def train(self, mode: bool = True) -> "FeatureNetwork":
        """Stay in eval: a frozen network needs no other mode."""
        super().train(False)
        return self

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Normalised float (B, N, H, W) -> the map (B, channels, ⌈H/stride⌉, ⌈W/stride⌉)."""

    def sha256(self) -> str:
        """A hash of all weights, in the order of their names: the same wherever the file lies."""
        total = hashlib.sha256()
        for name, tensor in sorted(self.state_dict().items()):
            total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return total.hexdigest()


class TimmFeatures(FeatureNetwork):
    """The last map of a timm network."""

    def __init__(self, backbone: TimmBackbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.stride, self.channels = backbone.strides[-1], backbone.channels[-1]
        self.license = backbone.license
        self.remember_pixels(backbone.mean, backbone.std)
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised float (B, N, H, W) -> the map (B, channels, ⌈H/stride⌉, ⌈W/stride⌉)."""
        found: Tensor = self.backbone(images)[-1]
        return found


class TokenFeatures(FeatureNetwork):
    """The last hidden state of a network of transformers, its tokens put on a grid and those before the patches dropped."""

    def __init__(self, net: nn.Module, stride: int, channels: int, prefix: int) -> None:
        super().__init__()
        self.net = net
        self.stride, self.channels, self.prefix = stride, channels, prefix
        self.flips_channels = False
        self.eval().requires_grad_(False)

    def normalize(self, images: Tensor) -> Tensor:
        """uint8 (B, H, W, 3) of red, green, blue -> float32 (B, 3, H, W) in the network's own order of channels."""
        return super().normalize(images.flip(-1) if self.flips_channels else images)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised float (B, 3, H, W) -> the map (B, channels, ⌈H/stride⌉, ⌈W/stride⌉); images are padded to whole patches."""
        below, right = (-side % self.stride for side in images.shape[-2:])
        padded = F.pad(images, (0, right, 0, below))
        state = last_state(self.net, padded)
        if state.ndim == 4:
            return state
        height, width = (side // self.stride for side in padded.shape[-2:])
        return state[:, self.prefix :].transpose(1, 2).reshape(len(state), self.channels, height, width)


def last_state(net: nn.Module, images: Tensor) -> Tensor:
    """Tokens (B, N, D), or a map (B, D, h, w), of a network of transformers for float (B, 3, H, W)."""
    more = {"interpolate_pos_encoding": True} if _interpolates(net) else {}
    found: Tensor = net(pixel_values=images, **more).last_hidden_state
    return found


def _interpolates(net: nn.Module) -> bool:
    """Whether a network resizes its positions only if it is asked to, as ViT does."""
    return "interpolate_pos_encoding" in inspect.signature(net.forward).parameters


def load_features(source: str, weights: str, bands: int) -> FeatureNetwork:
    """The network at `timm:NAME`, `hf:ORG/NAME` or in a folder of transformers, in eval mode, on the CPU. Raises InputError.

    weights: of a timm network, as `build_backbone` takes them.  The random state does not change.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # random weights are the same ones when the run is resumed
        if source.startswith(TIMM):
            return _of_timm(source.removeprefix(TIMM), weights, bands)
        if not (source.startswith(HUB) or Path(source).is_dir()):
            raise InputError(
                f"--teacher '{source}' is not a frozen backbone: there is no such folder",
                "give timm:NAME, such as timm:vit_small_patch16_dinov3, hf:ORG/NAME, or a folder that save_pretrained wrote",
            )
        if bands != 3:
            raise InputError(f"the teacher '{source}' takes RGB images, got images of {bands} bands", "take a teacher of timm")
        return _of_transformers(repository_folder(source) if source.startswith(HUB) else Path(source), source)


def _of_timm(name: str, weights: str, bands: int) -> FeatureNetwork:
    try:
        stride = own_stride(name)
        normed = has_final_norm(name)
        backbone = build_backbone(name, stride, weights, bands=bands, final_norm=normed)
    except InputError as error:
        words = {"model.backbone": "--teacher", "model.weights": "pretrain.weights"}
        message, hint = (
            re.sub("|".join(map(re.escape, words)), lambda found: words[found[0]], text) for text in (error.message, error.hint)
        )
        raise InputError(message, hint) from error
    found = TimmFeatures(backbone)
    found.notes = (
        f"the teacher's last map has {found.channels} channels at stride {stride}" + (", behind its last norm" if normed else ""),
        *((backbone.note,) if backbone.note else ()),
    )
    return found


def _of_transformers(folder: Path, source: str) -> FeatureNetwork:
    transformers = require_transformers()
    if not (folder / "config.json").is_file():
        if (folder / "run.yaml").is_file():
            raise InputError(
                f"--teacher '{source}' is a run of segctl, wanted a frozen backbone",
                "a run teaches by `segctl distill --teacher`; here give timm:NAME or hf:ORG/NAME",
            )
        raise InputError(f"'{source}' has no config.json: it is not a network of transformers", "give what save_pretrained wrote")
    config = read_config(folder / "config.json")
    net = load_pretrained(
        transformers.AutoModel, folder, source, "it must be an image backbone", lambda net, images: last_state(_eyes(net), images)
    )
    net = _eyes(net)
    require_usable(net, source)
    stride, channels, prefix = _grid_of_tokens(net, _strides(config), source)
    facts = pixel_facts(folder, transformers)
    if facts is None:
        raise InputError(
            f"'{source}' has no preprocessor_config.json, so the normalisation of its images is not known",
            "put the preprocessor_config.json of its publisher beside config.json",
        )
    found = TokenFeatures(net, stride, channels, prefix)
    found.remember_pixels(facts.mean, facts.std)
    found.flips_channels = facts.flips_channels
    dropped = f"; its first {prefix} tokens are not places and are dropped" if prefix else ""
    found.notes = (f"the teacher's last hidden state has {channels} channels at stride {stride}{dropped}",)
    found.license = license_of_card(folder)
    return found


def _eyes(net: nn.Module) -> nn.Module:
    """Of CLIP and SigLIP the half that sees images; any other network whole."""
    found: nn.Module = getattr(net, "vision_model", net)
    return found


def _strides(config: dict[str, Any]) -> list[int]:
    """Strides that a configuration suggests: the size of patches, doubled for each further stage; then the usual ones."""
    own = {**config, **(config.get("vision_config") or {})}
    patch = own.get("patch_size")
    patch = patch[0] if isinstance(patch, list) and patch else patch
    stages = len(own.get("depths") or [0])
    suggested = [patch * 2 ** (stages - 1), patch] if isinstance(patch, int) and patch > 0 else []
    return list(dict.fromkeys([*suggested, *STRIDES]))


@torch.no_grad()
def _grid_of_tokens(net: nn.Module, strides: list[int], source: str) -> tuple[int, int, int]:
    """(stride, channels, tokens before the patches), found by running the network on images of two sizes.

    A stride fits if both images leave the same number of tokens beside one for each place. Raises InputError if none does.
    """
    reason = ""
    for stride in strides:
        sizes = [(4 * stride, 6 * stride), (8 * stride, 4 * stride)]
        try:
            states = [last_state(net, torch.zeros(1, 3, *size)) for size in sizes]
        except Exception as error:  # each network fails in its own way on sizes that it was not made for
            reason = reason or f": {first_line(error)}"
            continue
        places = [(height // stride, width // stride) for height, width in sizes]
        if all(state.ndim == 4 and tuple(state.shape[2:]) == place for state, place in zip(states, places, strict=True)):
            return stride, states[0].shape[1], 0
        rest = {state.shape[1] - height * width for state, (height, width) in zip(states, places, strict=True)}
        if all(state.ndim == 3 for state in states) and len(rest) == 1 and 0 <= (prefix := rest.pop()) <= MOST_PREFIX_TOKENS:
            return stride, states[0].shape[2], prefix
    raise InputError(
        f"the stride of '{source}' cannot be determined: for images of two sizes its last hidden state fits no grid{reason}",
        "give a backbone that takes images of any size, such as a DINOv2",
    )


def license_of_card(folder: Path) -> str:
    """The licence that the card of a repository, its README.md, states; empty where it states none."""
    card = folder / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    front = re.match(r"---\n(.*?)\n---", text, flags=re.DOTALL)
    lines = dict(re.findall(r"^(license(?:_name)?):\s*(\S+)", front[1], flags=re.MULTILINE)) if front else {}
    return str(lines.get("license_name") or lines.get("license") or "")
