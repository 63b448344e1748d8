"""A frozen backbone keeps its weights and statistics, and transformers of patches of 14 and 16 pixels take images of any size."""

import pytest
import torch
from torch import nn

from segctl.errors import InputError
from segctl.models import Segmenter, build_model
from segctl.models.external.hub import is_gated
from segctl.models.timm_backbone import timm_license
from segctl.schema.models import ModelSpec
from tests.slow_cases import slow_where

SMALL = {"weights": "none", "head": "linear", "aux": False}
TRANSFORMERS = {"vit_small_patch14_dinov2": 14, "vit_small_patch16_dinov3": 16, "vit_tiny_patch16_224": 16}


def network(backbone: str, stride: int, **more: object) -> Segmenter:
    torch.manual_seed(0)
    return build_model(ModelSpec.model_validate(SMALL | {"backbone": backbone, "output_stride": stride} | more), 5)


def test_training_changes_the_head_and_nothing_of_the_backbone() -> None:
    model = network("test_resnet", 8, frozen=True).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    torch.autograd.backward(model(torch.randn(2, 3, 40, 56)).logits.square().mean())
    optimizer.step()
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in changed} == {"head", "classifier"}
    assert not any(parameter.requires_grad for parameter in model.backbone.parameters())
    assert all(not layer.training for layer in model.backbone.modules())
    assert model.head.training
    assert not model.eval().head.training


def test_its_outputs_are_those_of_the_network_that_is_not_frozen() -> None:
    frozen, free = network("test_resnet", 8, frozen=True).eval(), network("test_resnet", 8).eval()
    images = torch.randn(1, 3, 33, 47)
    assert torch.equal(frozen(images).logits, free(images).logits)


@pytest.mark.parametrize(
    ("name", "stride"),
    slow_where(TRANSFORMERS.items(), lambda row: "dino" in row[0]),
)
def test_transformers_take_any_size_and_give_a_map_of_patches(name: str, stride: int) -> None:
    model = network(name, stride, frozen=True, final_norm=True).eval()
    assert model.backbone.strides[-1] == stride
    for height, width in ((stride, stride), (2 * stride + 1, 3 * stride), (1, 50)):
        found = model(torch.randn(1, 3, height, width)).logits
        assert found.shape == (1, 5, -(-height // stride), -(-width // stride))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3"])
def test_the_map_is_timms_own_patch_tokens_behind_the_last_norm(name: str) -> None:
    """Tokens of the class and of registers are not part of it; the grid is row by row."""
    stride = TRANSFORMERS[name]
    model = network(name, stride, frozen=True, final_norm=True).eval()
    whole: nn.Module = model.backbone.net.model  # type: ignore[assignment]
    side = 4 * stride if stride == 14 else 64
    images = torch.randn(1, 3, side, side + 2 * 16 if stride == 16 else side + stride)
    tokens = whole.forward_features(images)  # type: ignore[operator]
    grid = model.backbone(images)[-1]
    wanted = tokens[:, whole.num_prefix_tokens :].transpose(1, 2).unflatten(2, grid.shape[-2:])  # type: ignore[operator,misc]
    torch.testing.assert_close(grid, wanted)


@pytest.mark.slow
def test_the_last_norm_is_left_out_unless_it_is_asked_for() -> None:
    plain, normed = (network("vit_tiny_patch16_224", 16, final_norm=norm).eval() for norm in (False, True))
    images = torch.randn(1, 3, 32, 32)
    norm = normed.backbone.net.model.norm  # type: ignore[union-attr]
    wanted = norm(plain.backbone(images)[-1].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)  # type: ignore[operator]
    torch.testing.assert_close(normed.backbone(images)[-1], wanted)


@pytest.mark.parametrize("name", ["resnet18d", "sam2_hiera_tiny"])
def test_a_network_without_a_last_norm_is_refused_if_it_is_asked_for(name: str) -> None:
    with pytest.raises(InputError, match=f"model.final_norm: got true, but '{name}' has no norm behind its last block") as caught:
        network(name, 32, final_norm=True)
    assert caught.value.hint == "use `--set model.final_norm=false`"


def test_a_convolutional_network_cannot_be_dilated_to_14() -> None:
    with pytest.raises(InputError, match="got 14, but 'resnet18d' gives a last map of stride 8 or 16 or 32"):
        network("resnet18d", 14)


def test_a_hiera_of_one_size_is_refused_and_another_named() -> None:
    with pytest.raises(InputError, match="'hiera_tiny_224' takes only images of certain sizes") as caught:
        network("hiera_tiny_224", 32)
    assert "sam2_hiera_tiny" in caught.value.hint


def test_licences_are_timms_own() -> None:
    assert timm_license("vit_small_patch14_dinov2") == "apache-2.0"
    assert timm_license("vit_small_patch16_dinov3") == "dinov3-license"


class GatedRepoError(Exception):
    """As the hub's client raises it, by its name."""


def test_a_gated_download_is_told_from_others() -> None:
    outer = RuntimeError("cannot load")
    outer.__cause__ = GatedRepoError("401")
    assert is_gated(outer)
    assert not is_gated(RuntimeError("no route"))
