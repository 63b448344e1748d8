"""Networks: normalised images -> Prediction(logits, aux_logits, features).

model = segctl.models.load("runs/camvid-psp18")     a trained network, in eval mode
model = build_model(run.model, num_classes=11)      a new one

docs/add-a-head.md says how to add a head.
"""

from segctl.models.build import build_model, load, restore
from segctl.models.outputs import Outputs, Prediction, at_label_size, upsample
from segctl.models.saving import SavedModel, read, save
from segctl.models.segmenter import Segmenter
from segctl.models.timm_backbone import fused

__all__ = [
    "Outputs",
    "Prediction",
    "SavedModel",
    "Segmenter",
    "at_label_size",
    "build_model",
    "fused",
    "load",
    "read",
    "restore",
    "save",
    "upsample",
]
