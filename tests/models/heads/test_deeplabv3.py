import torch

from segctl.models.heads.deeplabv3 import DeepLabV3Head


def test_branches_are_pooling_pointwise_and_three_rates():
    head = DeepLabV3Head(in_channels=12, width=5)
    assert [branch[0].dilation[0] for branch in head.branches[1:]] == [1, 12, 24, 36]
    assert head.branches[1][0].kernel_size == (1, 1)
    assert head([torch.randn(2, 12, 9, 7)], (72, 56)).shape == (2, 5, 9, 7)


def test_parameters_by_hand():
    # pooling and 1×1 (12·5 and norm), three 3×3, one 3×3 over 25 channels
    count = sum(parameter.numel() for parameter in DeepLabV3Head(12, 5).parameters())
    assert count == 2 * (60 + 10) + 3 * (9 * 60 + 10) + 9 * 25 * 5 + 10
