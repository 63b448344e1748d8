import torch

from segctl.models.heads.pspnet import PSPNetHead


def test_one_branch_a_bin_each_of_the_head_s_width():
    head = PSPNetHead(in_channels=12, width=5)
    assert [branch.pooled[0].output_size for branch in head.branches] == [1, 2, 3, 6]
    assert head.merge[0].in_channels == 12 + 4 * 5
    assert head([torch.randn(2, 12, 9, 7)], (72, 56)).shape == (2, 5, 9, 7)


def test_parameters_by_hand():
    # four 1×1 (12·5) with norm (2·5), one 3×3 over 12 + 20 channels with norm
    count = sum(parameter.numel() for parameter in PSPNetHead(12, 5).parameters())
    assert count == 4 * (60 + 10) + 9 * 32 * 5 + 10
