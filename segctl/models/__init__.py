"""Networks: normalised images -> Prediction(logits, aux_logits, features).

model = segctl.models.load("runs/camvid-psp18")     a trained network, in eval mode
model = build_model(run.model, num_classes=11)      a new one
"""

from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

import torch

from segctl.errors import InputError
from segctl.models.backbone import Backbone, build_backbone
from segctl.models.head_widths import Widths, reference_widths
from segctl.models.heads import DeepLabV3Head, DeepLabV3PlusHead, Head, PSPNetHead, UNetHead
from segctl.models.outputs import Outputs, Prediction, at_label_size, upsample
from segctl.models.saving import SavedModel, fill, read, save
from segctl.models.segmenter import Segmenter
from segctl.schema.models import ModelSpec

__all__ = [
    "Outputs",
    "Prediction",
    "SavedModel",
    "Segmenter",
    "at_label_size",
    "build_model",
    "load",
    "read",
    "restore",
    "save",
    "upsample",
]


def build_model(spec: ModelSpec, num_classes: int) -> Segmenter:
    """The network of a preset. The same torch seed gives the same weights. Raises InputError."""
    backbone = build_backbone(spec.backbone, spec.output_stride, spec.weights)
    widths = reference_widths(backbone.channels[-1])
    head = _build_head(spec, backbone, widths)
    if spec.aux and len(backbone.channels) < 2:
        raise InputError(f"model.aux: '{spec.backbone}' gives one map, wanted two", "use `--set model.aux=false`")
    return Segmenter(backbone, head, num_classes, aux_width=widths.aux if spec.aux else None)


def _build_head(spec: ModelSpec, backbone: Backbone, widths: Widths) -> Head:
    channels, strides = backbone.channels, backbone.strides
    width = spec.width or widths.head
    match spec.head:
        case "pspnet":
            return PSPNetHead(channels[-1], width)
        case "deeplabv3":
            return DeepLabV3Head(channels[-1], width)
        case "deeplabv3plus":
            if 4 not in strides:
                raise _unsuitable(spec, backbone, "a map of stride 4")
            fine = strides.index(4)
            return DeepLabV3PlusHead(channels[-1], channels[fine], fine, width, widths.shortcut)
        case "unet":
            if strides[-1] != 32 or len(set(strides)) < len(strides):
                raise _unsuitable(spec, backbone, "one map for each stride, the last of stride 32")
            return UNetHead(channels, strides, base=max(1, width // 8))
        case _:
            assert_never(spec.head)


def _unsuitable(spec: ModelSpec, backbone: Backbone, wanted: str) -> InputError:
    strides = ", ".join(map(str, backbone.strides))
    return InputError(
        f"model.head: '{spec.head}' wants {wanted}, got strides {strides} from '{spec.backbone}'",
        "change model.output_stride (32 for unet) or model.backbone, or use `--set model.head=deeplabv3`",
    )


def load(path: Path | str, device: torch.device | str = "cpu", class_names: Sequence[str] | None = None) -> Segmenter:
    """The trained network in a run folder or model file, in eval mode on `device`; never downloads.

    With class_names, a network of other classes is refused. Raises InputError. The random state stays as it was, so
    that loading a teacher does not change a student's first weights.
    """
    return restore(read(Path(path)), device, class_names)


def restore(saved: SavedModel, device: torch.device | str = "cpu", class_names: Sequence[str] | None = None) -> Segmenter:
    """`load` for a model file that has been read."""
    if class_names is not None and list(class_names) != saved.class_names:
        raise InputError(
            f"'{saved.path}' knows {len(saved.class_names)} classes ({', '.join(saved.class_names)}), "
            f"wanted {len(class_names)} ({', '.join(class_names)})",
            "give a network trained on the same dataset",
        )
    with torch.random.fork_rng(devices=[]):
        model = build_model(saved.model.model_copy(update={"weights": "none"}), len(saved.class_names))
    fill(model, saved)
    model.class_names = list(saved.class_names)
    return model.to(device).eval()
