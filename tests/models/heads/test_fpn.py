"""FPN's head: the size of segmentation_models_pytorch's, and a pyramid by hand."""

import pytest
import torch

from segctl.models.heads.fpn import FPNHead


@pytest.mark.parametrize(
    ("channels", "wanted"),
    [
        ((64, 128, 256, 512), 1_870_592),  # smp.FPN("resnet18", classes=19).decoder of segmentation_models_pytorch 0.6.0
        ((256, 512, 1024, 2048), 2_607_872),  # smp.FPN("resnet50", classes=19).decoder
    ],
)
def test_parameters_are_those_of_segmentation_models_pytorch(channels, wanted):
    head = FPNHead(channels, (4, 8, 16, 32), 128)
    assert sum(parameter.numel() for parameter in head.parameters()) == wanted
    by_hand = sum(channels) * 256 + 4 * 256 + 4 * 256 * 128 * 9 + 3 * 128 * 128 * 9 + 7 * 2 * 128
    assert by_hand == wanted


def test_a_level_takes_one_step_for_each_halving_of_its_stride():
    head = FPNHead((5, 6, 7, 8), (4, 8, 16, 16), 4)
    assert [len(level) for level in head.levels] == [1, 1, 2, 2]


def test_coarse_maps_are_added_down_the_pyramid_and_the_levels_are_added_up():
    """With identity layers each level is the sum of its own map and of all coarser ones: 1, 1 + 10, 1 + 10 + 100, in all 123."""
    head = FPNHead((1, 1, 1), (4, 8, 16), 1).eval()
    for layer in head.lateral:
        layer.load_state_dict({"weight": torch.tensor([1.0, 0.0]).view(2, 1, 1, 1), "bias": torch.zeros(2)})
    head.levels = torch.nn.ModuleList(torch.nn.ModuleList(torch.nn.Identity() for _ in level) for level in head.levels)
    maps = [torch.full((1, 1, 5, 7), 100.0), torch.full((1, 1, 3, 4), 10.0), torch.ones(1, 1, 2, 2)]
    found = head(maps, (17, 27))
    assert found.shape == (1, 2, 5, 7)
    assert found[0, 0].flatten().tolist() == pytest.approx([1 + 11 + 111] * 35)


@pytest.mark.parametrize(("width", "groups"), [(128, 32), (256, 32), (64, 16), (16, 4), (18, 1), (3, 1)])
def test_groups_of_the_norm_have_four_channels_or_more(width, groups):
    assert FPNHead((8, 8), (4, 8), width).levels[0][0][1].num_groups == groups
