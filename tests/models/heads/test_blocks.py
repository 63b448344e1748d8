"""The layers of the heads."""

import math

import pytest
import torch

from segctl.models.heads.auxiliary import AuxiliaryHead, classifier
from segctl.models.heads.blocks import (
    ConvBNReLU,
    PooledBatchNorm2d,
    PoolingBranch,
    has_unseen_taps,
    init_decoder,
    silence_unseen_taps,
)


@pytest.mark.parametrize(("kernel_size", "dilation"), [(1, 1), (3, 1), (3, 12), (3, 36)])
def test_convolutions_keep_the_size(kernel_size, dilation):
    assert ConvBNReLU(4, 6, kernel_size, dilation)(torch.randn(2, 4, 5, 7)).shape == (2, 6, 5, 7)


def test_convolutions_have_no_bias():
    assert ConvBNReLU(4, 6)[0].bias is None


def test_pooled_norm_takes_running_statistics_for_one_value_and_leaves_them():
    norm = PooledBatchNorm2d(2).train()
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    norm.running_var.copy_(torch.tensor([4.0, 9.0]))
    x = torch.tensor([3.0, 8.0]).view(1, 2, 1, 1)
    assert norm(x).flatten().tolist() == pytest.approx([1.0, 2.0], abs=1e-5)
    assert norm.running_mean.tolist() == [1.0, 2.0]
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (1, 3, 2, 1)])
def test_pooled_norm_is_plain_batch_norm_otherwise(shape):
    x = torch.randn(shape)
    ours, plain = PooledBatchNorm2d(3).train(), torch.nn.BatchNorm2d(3).train()
    assert torch.equal(ours(x), plain(x))
    assert torch.equal(ours.running_var, plain.running_var)


@pytest.mark.parametrize("bin_px", [1, 2, 3, 6])
def test_pooling_branch_gives_the_input_s_size_even_below_its_bins(bin_px):
    assert PoolingBranch(4, 6, bin_px)(torch.randn(2, 4, 2, 3)).shape == (2, 6, 2, 3)


def test_global_pooling_branch_is_the_mean_everywhere():
    branch = PoolingBranch(1, 1).eval()
    torch.nn.init.ones_(branch.pooled[1].weight)
    x = torch.tensor([[[[1.0, 2.0], [3.0, 6.0]]]])
    assert branch(x).flatten().tolist() == pytest.approx([3.0] * 4, rel=1e-4)


def test_decoders_start_kaiming_uniform_over_fan_in():
    block = ConvBNReLU(40, 50, 3)
    torch.nn.init.zeros_(block[1].weight)
    torch.manual_seed(0)
    init_decoder(block)
    bound = math.sqrt(6 / (40 * 9))
    assert 0.99 * bound < block[0].weight.abs().max() <= bound
    assert block[0].weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
    assert block[1].weight.unique().tolist() == [1.0]
    assert block[1].bias.unique().tolist() == [0.0]


def test_classifiers_start_xavier_uniform_with_no_bias():
    torch.manual_seed(0)
    layer = classifier(200, 19)
    bound = math.sqrt(6 / (200 + 19))
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert layer.bias.unique().tolist() == [0.0]


def test_auxiliary_head_drops_whole_channels_in_training_only():
    head = AuxiliaryHead(4, 8, 3, dropout=0.5)
    x = torch.randn(1, 4, 5, 7)
    assert head(x).shape == (1, 3, 5, 7)
    head.eval()
    assert torch.equal(head(x), head(x))


@pytest.mark.parametrize(
    ("rate", "kept"),
    [
        (1, [[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
        (2, [[1, 1, 1], [1, 1, 1], [1, 1, 1]]),
        (3, [[0, 1, 0], [0, 1, 0], [0, 1, 0]]),  # wider than the map, not higher
        (5, [[0, 0, 0], [0, 1, 0], [0, 0, 0]]),
    ],
)
def test_weights_that_meet_padding_alone_are_zero_and_change_nothing_on_the_crop(rate, kept):
    """A crop of 36×20 at stride 8 is a map of 5×3. The gradient of these weights is zero, so they stay zero."""
    layer, x = ConvBNReLU(2, 4, 3, rate), torch.randn(2, 2, 5, 3)
    before = layer(x)
    before.square().sum().backward()
    assert (layer[0].weight.grad.abs().sum((0, 1)) > 0).int().tolist() == kept
    assert has_unseen_taps(layer, 8, (36, 20)) is (rate >= 3)
    silence_unseen_taps(layer, 8, (36, 20))
    assert (layer[0].weight.abs().sum((0, 1)) > 0).int().tolist() == kept
    assert not has_unseen_taps(layer, 8, (36, 20))
    assert torch.equal(layer(x), before)
