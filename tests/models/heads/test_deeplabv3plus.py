import torch

from segctl.models.heads.deeplabv3plus import DeepLabV3PlusHead, SeparableConv


def test_output_has_the_size_of_the_fine_map():
    head = DeepLabV3PlusHead(in_channels=12, fine_channels=6, fine_index=1, width=5, shortcut=3)
    maps = [torch.randn(2, 4, 37, 25), torch.randn(2, 6, 19, 13), torch.randn(2, 12, 10, 7)]
    assert head(maps, (74, 50)).shape == (2, 5, 19, 13)


def test_separable_convolution_is_depthwise_then_pointwise():
    depthwise, pointwise = SeparableConv(4, 6, 3, dilation=2)
    assert (depthwise[0].groups, depthwise[0].kernel_size, depthwise[0].dilation) == (4, (3, 3), (2, 2))
    assert (pointwise[0].groups, pointwise[0].kernel_size) == (1, (1, 1))
    # 9 weights a channel and norm, 4·6 weights and norm
    assert sum(parameter.numel() for parameter in SeparableConv(4, 6, 3).parameters()) == 36 + 8 + 24 + 12


def test_pooling_branch_and_merge_are_dense_everything_else_separable():
    head = DeepLabV3PlusHead(in_channels=12, fine_channels=6, fine_index=0, width=5, shortcut=3)
    assert [type(branch).__name__ for branch in head.branches] == ["PoolingBranch", *["SeparableConv"] * 4]
    assert (head.merge[0].in_channels, head.merge[0].groups) == (25, 1)
    assert [type(layer).__name__ for layer in head.decoder] == ["SeparableConv", "SeparableConv"]
