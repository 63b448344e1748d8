"""The networks are the reference's: equal parameter counts at 19 classes, auxiliary head included (no memory is used)."""

import pytest
import torch

from segctl.models import build_model
from segctl.schema.models import ModelSpec

REFERENCE = {
    ("deeplabv3", "resnet18d"): 13_986_374,
    ("deeplabv3", "mobilenetv2_100"): 3_797_478,
    ("deeplabv3", "resnet50d"): 68_113_030,
    ("deeplabv3", "resnet101d"): 87_105_158,
    ("deeplabv3", "xception65"): 82_453_078,
    ("deeplabv3plus", "resnet18d"): 12_470_498,
    ("deeplabv3plus", "resnet50d"): 43_596_022,
    ("deeplabv3plus", "efficientnet_b0"): 4_656_926,
    ("deeplabv3plus", "mobilenetv2_100"): 2_864_034,
    ("pspnet", "resnet18d"): 12_790_086,
    ("pspnet", "resnet101d"): 67_967_622,
    ("unet", "resnet18d"): 14_496_438,
    ("unet", "resnet50d"): 76_073_030,
    ("unet", "mobilenetv2_100"): 4_061_782,
}


DEEP = ("resnet50d", "resnet101d")
"""More layers of the kinds that resnet18d has, and a bottleneck that efficientnet_b0 and mobilenetv2_100 stand for."""


@pytest.mark.parametrize(
    ("head", "backbone"),
    [pytest.param(*pair, marks=pytest.mark.slow) if pair[1] in DEEP else pair for pair in REFERENCE],
)
def test_parameter_count_is_the_reference_s(head, backbone):
    spec = ModelSpec(backbone=backbone, head=head, output_stride=32 if head == "unet" else 8, weights="none")
    with torch.device("meta"):
        model = build_model(spec, num_classes=19)
    assert sum(parameter.numel() for parameter in model.parameters()) == REFERENCE[head, backbone]
