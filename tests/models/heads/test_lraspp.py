"""LR-ASPP against torchvision's implementation, and by hand."""

import pytest
import torch

from segctl.errors import InputError
from segctl.models import build_model
from segctl.models.heads.lraspp import LRASPPHead
from segctl.schema.models import ModelSpec
from tests.models.specs import network

TORCHVISION = 3_221_538
"""Parameters of torchvision's lraspp_mobilenet_v3_large with 21 classes, in its documentation."""


def test_parameters_are_torchvision_s_but_for_its_second_bias():
    spec = ModelSpec(backbone="mobilenetv3_large_100", head="lraspp", output_stride=16, aux=False, weights="none")
    with torch.device("meta"):
        model = build_model(spec, 21)
    assert sum(parameter.numel() for parameter in model.parameters()) + 21 == TORCHVISION


def test_logits_are_torchvision_s():
    reference = pytest.importorskip("torchvision.models.segmentation.lraspp").LRASPPHead(6, 10, 5, 7).eval()
    ours = LRASPPHead(10, 6, 1, 7).eval()
    reference.cbr[1].running_mean.normal_()
    ours.conv.load_state_dict(reference.cbr.state_dict())
    ours.scale.load_state_dict(reference.scale[1].state_dict())
    high, low = torch.randn(2, 10, 5, 7), torch.randn(2, 6, 9, 13)
    with torch.no_grad():
        features = ours([torch.randn(2, 1, 18, 26), low, high], (72, 104))
        weight = torch.cat([reference.high_classifier.weight, reference.low_classifier.weight], 1)
        found = torch.nn.functional.conv2d(features, weight, reference.high_classifier.bias + reference.low_classifier.bias)
        wanted = reference({"high": high, "low": low})
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_map_of_one_value_by_hand():
    head = LRASPPHead(1, 1, 0, 1).eval()
    with torch.no_grad():
        head.conv[0].weight.fill_(3.0)
        head.scale.weight.fill_(0.5)
        found = head([torch.full((1, 1, 2, 2), 7.0), torch.full((1, 1, 1, 1), 2.0)], (16, 16))
    # 3·2 through a fresh batch norm (ε 1e-5), times sigmoid(0.5·2) = 0.7310586; the fine map as it is.
    assert found[0, 0].flatten().tolist() == pytest.approx([6 * 0.7310586] * 4, rel=1e-4)
    assert found[0, 1].flatten().tolist() == [7.0] * 4


def test_a_backbone_without_a_finer_map_of_stride_8_is_refused():
    with pytest.raises(InputError, match=r"'lraspp' wants a map of stride 8 before the last, got strides 16, 16, 16 from"):
        network("lraspp", output_stride=16, backbone="test_vit")
