"""A folded network gives the outputs of the one it was made from, and nothing is folded that something else looks at."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from segctl.models import build_model
from segctl.models.folded import folded
from segctl.models.segmenter import Segmenter
from segctl.schema.models import ModelSpec
from tests.slow_cases import slow_after


def outputs(network: nn.Module) -> Sequence[Tensor]:
    images = torch.randn(1, 3, 40, 56, generator=torch.Generator().manual_seed(0))
    found = network(images)
    return [found] if isinstance(found, Tensor) else [each for each in found if each is not None]


def trained(network: nn.Module) -> nn.Module:
    """With statistics as after some training, so that folding changes the weights."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return network.eval()


def test_by_hand() -> None:
    pair = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1, eps=0.0)).eval()
    convolution, norm = pair
    assert isinstance(convolution, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    convolution.weight.data.fill_(6.0)
    norm.weight.data.fill_(2.0)
    norm.bias.data.fill_(7.0)
    norm.running_mean.fill_(3.0)
    norm.running_var.fill_(4.0)
    found, count = folded(pair, lambda net: [net(torch.ones(1, 1, 2, 2))])
    assert count == 1
    assert isinstance(found[1], nn.Identity)
    assert found[0].weight.item() == 6.0  # (6 x - 3) · 2 / √4 + 7 = 6 x + 4
    assert found[0].bias.item() == 4.0
    assert convolution.bias is None  # the network itself is as it was


@pytest.mark.parametrize(
    ("backbone", "head"),
    [("test_resnet", "pspnet"), ("test_efficientnet", "deeplabv3plus"), ("tf_efficientnet_lite0", "deeplabv3plus")],
)
@pytest.mark.parametrize("dtype", slow_after([torch.float32, torch.bfloat16]))
def test_outputs_stay_and_all_norms_of_a_plain_network_go(backbone: str, head: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    spec = ModelSpec.model_validate({"backbone": backbone, "head": head, "width": 8, "weights": "none", "aux": True})
    network = trained(build_model(spec, 5))
    found, count = folded(network, outputs, dtype)
    assert isinstance(found, Segmenter)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert count == len(norms) > 10
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.modules())
    assert {each.dtype for each in found.parameters()} == {dtype}
    with torch.no_grad():
        true = outputs(network)
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            both = outputs(found), outputs(network)
    for mine, theirs, exact in zip(*both, true, strict=True):
        error = (mine - exact).abs().mean()
        if dtype == torch.float32:
            assert error <= 1e-5 * exact.abs().mean()
        else:  # no further from float32 than the network itself is
            assert error <= 1.5 * (theirs - exact).abs().mean()


class Odd(nn.Module):
    """A convolution whose result is read by a norm and by something else as well, as `how` says."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.convolution = nn.Conv2d(3, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.seen: list[Tensor] = []
        if how == "tapped":
            self.norm.register_forward_pre_hook(lambda module, images: None)
        if how == "watched":
            self.convolution.register_forward_hook(lambda module, images, found: None)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        found = self.convolution(images)
        if self.how == "twice":
            found = self.convolution(found)
        normed = self.norm(found.relu() if self.how == "between" else found)
        if self.how == "residual":
            return (normed + found,)
        return (normed, found) if self.how == "returned" else (normed,)


@pytest.mark.parametrize("how", ["tapped", "watched", "twice", "between", "residual", "returned", "alone"])
def test_what_others_read_is_not_folded(how: str) -> None:
    torch.manual_seed(0)
    network = trained(Odd(how))
    found, count = folded(network, outputs)
    assert count == (how == "alone")
    with torch.no_grad():
        for mine, theirs in zip(outputs(found), outputs(network), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_a_network_that_asks_for_its_norm_keeps_it() -> None:
    class Asking(Odd):
        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            assert self.norm.eps
            return super().forward(images)

    found, count = folded(trained(Asking("alone")), outputs)
    assert count == 0
    assert isinstance(found.norm, nn.BatchNorm2d)


def test_weights_too_large_for_half_precision_are_not_folded() -> None:
    network = trained(Odd("alone"))
    assert isinstance(network, Odd)
    assert network.norm.running_var is not None
    network.norm.running_var.fill_(0.0)  # a channel that never varied: the norm multiplies by 316
    network.norm.weight.data.fill_(1e4)
    assert folded(network, outputs, torch.float16)[1] == 0
    assert folded(network, outputs)[1] == 1


def test_a_layer_whose_type_the_network_looks_at_is_not_cast() -> None:
    class Looking(Odd):
        def forward(self, images: Tensor) -> tuple[Tensor, ...]:
            if self.convolution.weight.dtype != torch.float32:
                raise RuntimeError("float32 is wanted")
            return super().forward(images)

    found, count = folded(trained(Looking("alone")), outputs, torch.bfloat16)
    assert count == 1
    assert found.convolution.weight.dtype == torch.float32
