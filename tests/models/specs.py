"""Small networks for the tests: a toy ResNet from timm with narrow heads."""

from segctl.models import Segmenter, build_model
from segctl.schema import models
from segctl.schema.models import ModelSpec
from segctl.schema.run import TrainRun

HEADS = tuple(models.HEADS)
CLASS_NAMES = ["road", "car", "sky", "tree", "sign"]


def spec(head="pspnet", output_stride=None, backbone="test_resnet", width=16, aux=True, weights="none", stages=None):
    stride = output_stride or (32 if head == "unet" else 8)
    return ModelSpec(
        backbone=backbone, head=head, output_stride=stride, stages=stages, width=width, aux=aux, weights=weights
    )  # fmt: skip


def network(head="pspnet", num_classes=5, **changes) -> Segmenter:
    return build_model(spec(head, **changes), num_classes)


def run_of(model: ModelSpec) -> TrainRun:
    return TrainRun.model_validate(
        {
            "name": "toy",
            "recipe": "scratch",
            "data": {"dataset": "shapes", "crop": [32, 32]},
            "model": model.model_dump(),
            "loss": [{"kind": "cross_entropy"}],
            "optim": {"kind": "sgd", "lr": 0.01},
            "train": {"steps": 1, "batch_size": 1, "validate_every": 1, "checkpoint_every": 1},
        }
    )
