"""Depthwise convolutions in bfloat16 on a CPU: the layer with its gradient in float32 against torch's own."""

import copy

import pytest
import torch
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segctl.models.depthwise import quicken_depthwise

LAYERS = {
    "3x3": lambda: nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False),
    "5x5 stride 2": lambda: nn.Conv2d(6, 6, 5, stride=2, padding=2, groups=6, bias=False),
    "dilated with bias": lambda: nn.Conv2d(6, 6, 3, padding=4, dilation=4, groups=6),
    "two of each": lambda: nn.Conv2d(6, 12, 3, padding=1, groups=6),
    "1x5 without padding": lambda: nn.Conv2d(6, 6, (1, 5), groups=6),
    "more padding than kernel": lambda: nn.Conv2d(6, 6, 3, padding=3, groups=6),
    "same, stride 2": lambda: Conv2dSame(6, 6, 5, stride=2, groups=6),
}


def gradients(layer: nn.Module, maps: Tensor, slope: Tensor | None = None) -> tuple[Tensor, ...]:
    """The output of a layer in bfloat16, and the gradients of maps and weights for a slope (default: ones)."""
    maps = maps.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(maps)
    weights = list(layer.parameters())
    slopes = torch.autograd.grad(found, [maps, *weights], torch.ones_like(found) if slope is None else slope.to(found.dtype))
    return found.detach(), *slopes


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_forward_is_torch_s_and_the_gradient_is_nearer_to_the_exact_one(kind: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = LAYERS[kind]()
    maps = torch.randn(3, 6, 11, 13).bfloat16().float().to(memory_format=layout)
    own = copy.deepcopy(layer)
    assert quicken_depthwise(own) == 1
    with torch.no_grad():
        slope = torch.randn_like(layer(maps)).bfloat16()
    torchs, found = gradients(layer, maps, slope), gradients(own, maps, slope)
    assert torch.equal(torchs[0], found[0])
    # Exact: in float64, with the weights rounded as both forms round them.
    exact_layer = copy.deepcopy(layer).bfloat16().double()
    inputs = maps.double().requires_grad_()
    result = exact_layer(inputs)
    exact = torch.autograd.grad(result, [inputs, *exact_layer.parameters()], slope.double())
    for name, mine, theirs, wanted in zip(("maps", "weight", "bias"), found[1:], torchs[1:], exact, strict=False):
        assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape), name
        size = wanted.abs().max()
        off = (mine - wanted).abs().max() / size
        assert off <= (4e-3 if name == "maps" else 1e-6), (name, float(off))  # gradients of bfloat16 maps are bfloat16
        assert off <= (theirs - wanted).abs().max() / size + 1e-7, name


def test_by_hand() -> None:
    layer = nn.Conv2d(2, 2, 1, groups=2, bias=True)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([2.0, -3.0]).view(2, 1, 1, 1))
    quicken_depthwise(layer)
    maps = torch.tensor([[[[1.0, 2.0]], [[4.0, 8.0]]]])
    _, to_maps, to_weight, to_bias = gradients(layer, maps)
    assert to_maps.tolist() == [[[[2, 2]], [[-3, -3]]]]
    assert to_weight.flatten().tolist() == [3, 12]
    assert to_bias.tolist() == [2, 2]


def test_only_depthwise_layers_that_torch_places_are_taken() -> None:
    class Other(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) + 1

    network = nn.Sequential(
        nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3, groups=2), nn.Conv2d(1, 1, 3), Other(4, 4, 3, groups=4),
        nn.Conv2d(4, 4, 3, groups=4, padding="same"), nn.Conv2d(4, 4, 3, groups=4, padding=1, padding_mode="reflect"),
    )  # fmt: skip
    assert quicken_depthwise(network) == 0


def test_without_autocast_or_gradients_nothing_changes() -> None:
    layer = LAYERS["3x3"]()
    own = copy.deepcopy(layer)
    quicken_depthwise(own)
    maps = torch.randn(2, 6, 9, 9)
    assert torch.equal(own(maps), layer(maps))
    assert own(maps).dtype == torch.float32
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(own(maps), layer(maps))
    assert own.state_dict().keys() == layer.state_dict().keys()


def test_a_copy_has_layers_of_its_own() -> None:
    network = nn.Sequential(LAYERS["3x3"]())
    quicken_depthwise(network)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        twin[0].weight.zero_()
    assert gradients(twin, torch.ones(1, 6, 4, 4))[0].abs().max() == 0
    assert gradients(network, torch.ones(1, 6, 4, 4))[0].abs().max() > 0


def test_weights_alone_need_no_gradient_of_the_maps() -> None:
    layer = LAYERS["3x3"]()
    quicken_depthwise(layer)
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.ones(1, 6, 4, 4)).sum().backward()
    assert layer.weight.grad is not None
    assert layer.weight.grad.abs().max() > 0


def test_recomputed_layers_have_the_same_gradients() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(LAYERS["3x3"](), nn.BatchNorm2d(6), nn.ReLU(), LAYERS["same, stride 2"]())
    quicken_depthwise(network)
    maps = torch.randn(2, 6, 10, 10)
    for plain, again in zip(gradients(network, maps), gradients(_Checkpointed(network), maps), strict=True):
        assert torch.equal(plain, again)


def test_it_compiles() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(LAYERS["3x3"](), nn.ReLU(), LAYERS["same, stride 2"]())
    quicken_depthwise(network)
    maps = torch.randn(2, 6, 10, 10)
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    for plain, other in zip(gradients(network, maps), gradients(compiled, maps), strict=True):
        torch.testing.assert_close(plain, other, rtol=1e-2, atol=1e-2)


class _Checkpointed(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, maps: Tensor) -> Tensor:
        found: Tensor = checkpoint(self.inner, maps, use_reentrant=False)
        return found
