"""Activation checkpointing changes memory and nothing else: outputs, gradients and running statistics to the last bit."""

import copy

import pytest
import torch
from torch import Tensor, nn

from segctl.models import Segmenter
from segctl.models.recompute import recompute_blocks
from tests.models.specs import network
from tests.slow_cases import slow_after

BACKBONES = {"test_resnet": 4, "resnet10t": 4, "test_efficientnet": 5, "test_convnext": 9}


def trained(backbone: str, recompute: bool, **more: int) -> Segmenter:
    torch.manual_seed(0)
    model = network(backbone=backbone, output_stride=32, **more).train()
    if recompute:
        recompute_blocks(model.backbone)
    return model


def step(model: Segmenter, seed: int = 1) -> Tensor:
    torch.manual_seed(seed)
    prediction = model(torch.randn(2, 3, 65, 49))
    (prediction.logits.square().mean() + prediction.aux_logits.square().mean() + prediction.features.mean()).backward()
    return prediction.logits.detach()


def saved_bytes(model: Segmenter) -> int:
    """Of all tensors that autograd holds between the forward and the backward pass, parameters left out."""
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(1)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        prediction = model(torch.randn(2, 3, 65, 49))
    assert prediction.logits.requires_grad
    return sum(held.values())


@pytest.mark.parametrize("backbone", slow_after(BACKBONES, 2))
def test_outputs_gradients_and_running_statistics_are_those_of_the_plain_pass(backbone: str) -> None:
    plain, spared = trained(backbone, False), trained(backbone, True)
    for seed in (1, 2):
        assert torch.equal(step(plain, seed), step(spared, seed))
    for (name, ours), theirs in zip(spared.named_parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None, name
        assert torch.equal(ours.grad, theirs.grad), name
    for (name, ours), theirs in zip(spared.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(ours, theirs), name
    counts = [int(count) for name, count in spared.named_buffers() if name.endswith("num_batches_tracked")]
    assert set(counts) <= {2}


def test_frozen_statistics_and_autocast_are_kept_too() -> None:
    plain, spared = trained("test_resnet", False), trained("test_resnet", True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(step(plain), step(spared))
    for ours, theirs in zip(spared.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)


@pytest.mark.parametrize(("backbone", "number"), BACKBONES.items())
def test_it_is_the_blocks_that_are_computed_again(backbone: str, number: int) -> None:
    assert recompute_blocks(network(backbone=backbone, output_stride=32).backbone) == number


@pytest.mark.slow
def test_resnet101_has_its_thirty_three() -> None:
    with torch.device("meta"):
        model = network(backbone="resnet101d", output_stride=8)
    assert recompute_blocks(model.backbone) == 33


@pytest.mark.slow
def test_less_is_kept_for_the_backward_pass() -> None:
    assert saved_bytes(trained("resnet34", True)) < 0.6 * saved_bytes(trained("resnet34", False))


def test_dropout_inside_a_block_drops_the_same_again() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.drop = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout(0.5)

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = x + self.drop(self.norm(self.conv(x)))
            return found

    torch.manual_seed(0)
    plain = nn.Sequential(Block(), Block())
    spared = copy.deepcopy(plain)
    assert recompute_blocks(spared) == 2
    image = torch.randn(2, 4, 8, 8)
    for net in (plain, spared):
        torch.manual_seed(5)
        net(image).square().sum().backward()
    state = torch.get_rng_state()
    for ours, theirs in zip(spared.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours.grad, theirs.grad)
    torch.manual_seed(5)
    plain(image)
    assert torch.equal(torch.get_rng_state(), state), "what follows draws as if nothing had been computed twice"


def test_a_copy_computes_with_its_own_weights() -> None:
    model = trained("test_resnet", True).eval()
    average = copy.deepcopy(model)
    images = torch.randn(1, 3, 33, 33)
    before = average(images).logits
    with torch.no_grad():
        for weight in model.backbone.parameters():
            weight.zero_()
    assert torch.equal(average(images).logits, before)
    assert not torch.equal(model(images).logits, before)


def test_names_of_weights_stay_as_they_are() -> None:
    assert trained("test_resnet", True).state_dict().keys() == trained("test_resnet", False).state_dict().keys()
