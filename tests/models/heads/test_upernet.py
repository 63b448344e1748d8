"""UPerNet's head against Hugging Face's implementation, and by hand."""

import pytest
import torch

from segctl.models.heads.upernet import UPerNetHead
from segctl.models.outputs import upsample

CHANNELS = (3, 4, 5, 6)


def test_parameters_by_hand_at_the_paper_s_width():
    """ResNet50's maps at width 512, as Hugging Face's head and mmsegmentation's have it; 3×3 unless said otherwise."""
    channels, width = (256, 512, 1024, 2048), 512
    norm = 2 * width
    pooling = 4 * (2048 * width + norm) + (2048 + 4 * width) * width * 9 + norm  # four bins by 1×1, and the top
    lateral = sum(channels[:-1]) * width + 3 * norm  # 1×1
    smooth, merge = 3 * (width * width * 9 + norm), 4 * width * width * 9 + norm
    head = UPerNetHead(channels, width)
    assert sum(parameter.numel() for parameter in head.parameters()) == pooling + lateral + smooth + merge == 40_513_536


def test_parameters_are_those_of_segmentation_models_pytorch():
    """smp.UPerNet("resnet18", classes=19).decoder of its 0.6.0, but for the layer norms that it puts before the decoder."""
    channels = (64, 128, 256, 512)
    found = sum(parameter.numel() for parameter in UPerNetHead(channels, 256).parameters())
    assert found + 2 * sum(channels) == 8_314_752


def test_features_are_hugging_face_s():
    transformers = pytest.importorskip("transformers", reason="Hugging Face's UPerNet is not installed")
    module = pytest.importorskip("transformers.models.upernet.modeling_upernet")
    config = transformers.UperNetConfig(hidden_size=7, pool_scales=[1, 2, 3, 6], num_labels=2)
    theirs, ours = module.UperNetHead(config, list(CHANNELS)).eval(), UPerNetHead(CHANNELS, 7).eval()
    pairs = [(branch.pooled, theirs.psp_modules.blocks[index].layers[1]) for index, branch in enumerate(ours.branches)]
    pairs += [(ours.top, theirs.bottleneck), (ours.merge, theirs.fpn_bottleneck)]
    pairs += [*zip(ours.lateral, theirs.lateral_convs, strict=True), *zip(ours.smooth, theirs.fpn_convs, strict=True)]
    with torch.no_grad():
        for mine, reference in pairs:
            reference.batch_norm.running_mean.normal_()
            mine[-3].load_state_dict(reference.conv.state_dict())
            mine[-2].load_state_dict(reference.batch_norm.state_dict())
        maps = [torch.randn(2, channels, side, side + 3) for channels, side in zip(CHANNELS, (33, 17, 9, 7), strict=True)]
        found = theirs.classifier(ours([torch.randn(2, 9, 66, 72), *maps], (132, 144)))
        torch.testing.assert_close(found, theirs(tuple(maps)), rtol=1e-5, atol=1e-5)


def test_levels_are_resized_to_the_map_of_stride_4_and_stand_finest_first():
    head = UPerNetHead((2, 2), 1, bins=(1,)).eval()
    seen = []
    head.merge = torch.nn.Identity()
    head.top.register_forward_hook(lambda module, inputs, output: seen.append(output))
    coarse = torch.randn(1, 2, 3, 4)
    found = head([torch.randn(1, 2, 5, 7), coarse], (20, 28))
    assert found.shape == (1, 2, 5, 7)
    assert torch.equal(found[:, 1:], upsample(seen[0], (5, 7)))
