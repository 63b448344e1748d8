"""SegFormer's head against the paper's size and Hugging Face's implementation."""

import pytest
import torch
from torch import nn

from segctl.errors import InputError
from segctl.models.heads.segformer import SegFormerHead
from segctl.models.timm_backbone import fused
from tests.models.specs import network

MIT_B0 = (32, 64, 160, 256)


def test_parameters_of_the_decoder_are_those_of_the_paper():
    """Table 1a, MiT-B0: C = 256 and 0.4 M with the classifier of ADE20K's 150 classes; by hand, layer by layer."""
    found = sum(parameter.numel() for parameter in SegFormerHead(MIT_B0, 256).parameters())
    linear, merge = sum(MIT_B0) * 256 + 4 * 256, 4 * 256 * 256 + 2 * 256
    assert found == linear + merge == 394_752
    assert round((found + 256 * 150 + 150) / 1e6, 1) == 0.4
    mit_b2 = sum(parameter.numel() for parameter in SegFormerHead((64, 128, 320, 512), 768).parameters())
    assert round((mit_b2 + 768 * 150 + 150) / 1e6, 1) == 3.3


def test_features_are_hugging_face_s():
    transformers = pytest.importorskip("transformers", reason="Hugging Face's SegFormer is not installed")
    module = pytest.importorskip("transformers.models.segformer.modeling_segformer")
    config = transformers.SegformerConfig(hidden_sizes=[3, 4, 5, 6], decoder_hidden_size=7, num_labels=2)
    theirs = module.SegformerDecodeHead(config).eval()
    theirs.batch_norm.running_mean.normal_()
    ours = SegFormerHead((3, 4, 5, 6), 7).eval()
    linear = [value for name, value in theirs.state_dict().items() if "proj" in name]
    for layer, weight, bias in zip(ours.linear, linear[::2], linear[1::2], strict=True):
        layer.load_state_dict({"weight": weight[..., None, None], "bias": bias})
    ours.merge[0].load_state_dict(theirs.linear_fuse.state_dict())
    ours.merge[1].load_state_dict(theirs.batch_norm.state_dict())
    maps = [torch.randn(2, channels, side, side + 3) for channels, side in ((3, 17), (4, 9), (5, 5), (6, 3))]
    with torch.no_grad():
        found = theirs.classifier(ours([torch.randn(2, 9, 34, 40), *maps], (68, 80)))
        torch.testing.assert_close(found, theirs(tuple(maps)), rtol=1e-5, atol=1e-5)


def test_the_merged_layers_give_what_the_paper_s_order_gives():
    """Linear, resize, concatenate, merge, as the paper has it; by hand: 2 × (3 × 1 + 1) + 5 × (4 × 2 + 0) = 48."""
    head = SegFormerHead((3, 4, 5, 6), 7).double()
    maps = [torch.randn(2, channels, side, side + 3, dtype=torch.double) for channels, side in ((3, 17), (4, 9), (5, 5), (6, 3))]
    slow = [nn.functional.interpolate(layer(x), (17, 20), mode="bilinear") for layer, x in zip(head.linear, maps, strict=True)]
    wanted = head.merge(torch.cat(slow[::-1], 1))
    wanted.sum().backward()
    gradients = [weight.grad.clone() for weight in head.parameters()]
    head.zero_grad()
    found = head(maps, (68, 80))
    found.sum().backward()
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close([weight.grad for weight in head.parameters()], gradients)
    with torch.no_grad():
        wanted, shipped = head.eval()(maps, (68, 80)), fused(nn.Sequential(head))[0]
        torch.testing.assert_close(shipped(maps, (68, 80)), wanted)
    assert sum(weight.numel() for weight in shipped.parameters()) == (3 + 4 + 5 + 6) * 7 + 4 * 7 + 2 * 7

    single = SegFormerHead((1, 1), 1).eval()
    for layer, weight, bias in zip(single.linear, (3.0, 4.0), (1.0, 0.0), strict=True):
        layer.weight.data.fill_(weight)
        layer.bias.data.fill_(bias)
    single.merge[0].weight.data[:] = torch.tensor([5.0, 2.0])[:, None, None]  # the coarse map's weight first
    found = single([torch.ones(1, 1, 4, 4), torch.full((1, 1, 2, 2), 2.0)], (16, 16))
    torch.testing.assert_close(found, torch.full((1, 1, 4, 4), 48.0 / (1 + 1e-5) ** 0.5))


@pytest.mark.parametrize("head", ["segformer", "fpn", "upernet"])
def test_a_backbone_without_a_map_of_stride_4_is_refused(head):
    with pytest.raises(InputError, match=f"'{head}' wants a map of stride 4 and coarser ones, got strides 16, 16, 16 from"):
        network(head, output_stride=16, backbone="test_vit")
