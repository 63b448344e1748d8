"""What is shipped is the network, without what only training needs."""

import numpy as np
import pytest
import torch
from torch import nn

from segctl.models import at_label_size
from segctl.models.deployed import DeployedNetwork
from segctl.models.outputs import CornerAlignedPrediction
from tests.models.specs import network
from tests.slow_cases import slow_after

PICTURE = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 33, 47, 3), dtype=np.uint8))


def settled(**changes):
    torch.manual_seed(1)
    model = network("lraspp", **changes).train()
    with torch.no_grad():
        for _ in range(3):
            model(torch.randn(2, 3, 64, 96))
    return model.eval()


@pytest.mark.parametrize(("backbone", "stride"), slow_after([("test_resnet", 16), ("repvit_m0_9", 32)]))
def test_it_gives_the_network_s_logits_with_fewer_convolutions(backbone, stride):
    model = settled(backbone=backbone, output_stride=stride)
    deployed = DeployedNetwork(model, "logits")
    with torch.no_grad():
        wanted = at_label_size(model(model.normalize(PICTURE)).logits, (33, 47))
        torch.testing.assert_close(deployed(PICTURE), wanted, atol=1e-3, rtol=1e-3)

    def convolutions(module):
        return sum(isinstance(layer, nn.Conv2d) for layer in module.modules())

    without_aux = convolutions(model) - convolutions(model.aux)
    assert convolutions(deployed) < without_aux if backbone == "repvit_m0_9" else convolutions(deployed) == without_aux
    assert not deployed.training
    assert model.aux is not None


def test_logits_of_a_network_with_aligned_corners_are_resized_so():
    """Along a row of two values and five pixels: 0, 1/4, 1/2, 3/4, 1 with aligned corners."""
    model = settled()
    ramp = torch.tensor([[[[0.0, 1.0]]]]).expand(1, 5, 1, 2)
    model.forward = lambda images: CornerAlignedPrediction(ramp, None, None)
    deployed = DeployedNetwork(model, "logits")
    deployed.network.forward = model.forward
    found = deployed(torch.zeros(1, 3, 5, 3, dtype=torch.uint8))
    assert found[0, 0, 0].tolist() == [0, 0.25, 0.5, 0.75, 1]
