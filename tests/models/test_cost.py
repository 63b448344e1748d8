"""What a prediction costs, by hand."""

import pytest
import torch
from torch import nn

from segctl.models import build_model
from segctl.models.cost import cost_of
from segctl.models.deployed import predicting
from tests.models.specs import network, spec


def operations_of(model, size):
    """Multiply-adds × 2 of the convolutions alone, from the shapes that pass through them."""
    found = []

    def count(layer, inputs, output):
        kernel = layer.weight[0].numel()  # of one output value: channels a group × kernel height × kernel width
        found.append(2 * kernel * output.numel())

    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(count)
    with torch.no_grad():
        model(torch.zeros(1, 3, *size))
    return sum(found)


@pytest.mark.parametrize("head", ["pspnet", "lraspp", "segformer", "fpn"])
def test_the_cost_is_that_of_every_convolution(head):
    asked = spec(head, output_stride=16)
    model = predicting(build_model(asked, 5))
    found = cost_of(asked, 5, (33, 47))
    assert found.gflop == pytest.approx(operations_of(model, (33, 47)) / 1e9, rel=1e-9)
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_one_layer_by_hand():
    """The classifier of pspnet at width 16 on a 32×48 image at stride 8: 5 classes × 16 channels × 4·6 pixels × 2."""
    small, large = (cost_of(spec("pspnet"), classes, (32, 48)) for classes in (5, 6))
    assert (large.gflop - small.gflop) * 1e9 == pytest.approx(2 * 16 * 4 * 6)
    assert large.parameters - small.parameters == 16 + 1


def test_the_auxiliary_classifier_is_left_out_and_the_network_itself_is_unchanged():
    model = network("pspnet", aux=True)
    assert predicting(model).aux is None
    assert model.aux is not None
    assert cost_of(spec("pspnet", aux=True), 5, (32, 32)) == cost_of(spec("pspnet", aux=False), 5, (32, 32))


@pytest.mark.slow
def test_re_parameterised_blocks_are_counted_as_one_convolution():
    asked = spec("lraspp", backbone="repghostnet_050", output_stride=32, aux=False)
    assert cost_of(asked, 5, (32, 32)).parameters < sum(parameter.numel() for parameter in build_model(asked, 5).parameters())
