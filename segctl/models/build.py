"""From a preset's model block, or a model file, to a network."""

from collections.abc import Sequence
from pathlib import Path

import torch

from segctl.errors import InputError
from segctl.models.head_widths import reference_widths
from segctl.models.heads import head_class
from segctl.models.saving import SavedModel, fill, read
from segctl.models.segmenter import Segmenter
from segctl.models.timm_backbone import build_backbone
from segctl.schema.models import ModelSpec


def build_model(spec: ModelSpec, num_classes: int) -> Segmenter:
    """The network of a preset. The same torch seed gives the same weights. Raises InputError."""
    backbone = build_backbone(spec.backbone, spec.output_stride, spec.weights)
    widths = reference_widths(backbone.channels[-1])
    head = head_class(spec.head).of(spec, backbone, widths)
    if spec.aux and len(backbone.channels) < 2:
        raise InputError(f"model.aux: '{spec.backbone}' gives one map, wanted two", "use `--set model.aux=false`")
    return Segmenter(backbone, head, num_classes, aux_width=widths.aux if spec.aux else None)


def load(path: Path | str, device: torch.device | str = "cpu", class_names: Sequence[str] | None = None) -> Segmenter:
    """The trained network in a run folder or model file, in eval mode on `device`; never downloads.

    With class_names, a network of other classes is refused. The random state does not change, so loading a teacher does not
    change a student's first weights. Raises InputError.
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
