"""What every head must do, on one toy backbone."""

import pytest
import torch

from segctl.errors import InputError
from segctl.models import upsample
from tests.models.specs import HEADS, network

ALL = [(head, stride) for head in HEADS for stride in ((32,) if head == "unet" else (8, 16, 32))]
SIZES = [(1, 1), (33, 47), pytest.param((7, 3), marks=pytest.mark.slow), pytest.param((64, 40), marks=pytest.mark.slow)]


def ceil_div(size, stride):
    return tuple(-(-pixels // stride) for pixels in size)


def head_stride(head, output_stride):
    ends_at = {"unet": 1, "deeplabv3plus": 4, "lraspp": 8, "segformer": 4, "fpn": 4, "upernet": 4}
    return ends_at.get(head, output_stride)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("head", "stride"), ALL)
def test_logits_come_at_head_stride_for_any_size(head, stride, size):
    model = network(head, output_stride=stride).eval()
    with torch.no_grad():
        prediction = model(torch.randn(2, 3, *size))
    assert prediction.logits.shape == (2, 5, *ceil_div(size, head_stride(head, stride)))
    assert prediction.features.shape == (2, model.head.out_channels, *prediction.logits.shape[-2:])
    assert prediction.aux_logits.shape == (2, 5, *ceil_div(size, min(stride, 16)))
    assert upsample(prediction.logits, size).shape == (2, 5, *size)


@pytest.mark.parametrize("head", HEADS)
def test_gradient_reaches_every_parameter(head):
    model = network(head).train()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            torch.nn.init.ones_(layer.weight)  # timm starts the last one of each block at zero, which holds back gradients
    prediction = model(torch.randn(2, 3, 65, 49))
    (prediction.logits.square().mean() + prediction.aux_logits.square().mean()).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    assert without == []


@pytest.mark.parametrize("head", HEADS)
def test_a_batch_of_one_can_be_trained_on(head):
    model = network(head).train()
    prediction = model(torch.randn(1, 3, 40, 33))
    prediction.logits.sum().backward()
    assert prediction.logits.isfinite().all()


@pytest.mark.parametrize("head", HEADS)
def test_eval_is_deterministic(head):
    model = network(head).eval()
    images = torch.randn(1, 3, 33, 47)
    with torch.no_grad():
        first, second = model(images), model(images)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("head", HEADS)
def test_without_auxiliary_head_there_are_no_auxiliary_logits(head):
    model = network(head, aux=False)
    assert model.aux is None
    assert model.eval()(torch.randn(1, 3, 33, 33)).aux_logits is None


@pytest.mark.parametrize("head", HEADS)
def test_same_seed_gives_the_same_weights(head):
    torch.manual_seed(3)
    first = network(head).state_dict()
    torch.manual_seed(3)
    second = network(head).state_dict()
    torch.manual_seed(4)
    third = network(head).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["classifier.weight"], third["classifier.weight"])


@pytest.mark.parametrize("head", HEADS)
def test_bf16_autocast_and_channels_last_memory_work(head):
    model = network(head).to(memory_format=torch.channels_last).train()
    images = model.normalize(torch.randint(0, 256, (2, 33, 47, 3), dtype=torch.uint8))
    with torch.autocast("cpu", torch.bfloat16):
        prediction = model(images)
    assert prediction.logits.dtype == torch.bfloat16
    prediction.logits.float().sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in model.head.parameters())


def test_features_are_what_the_classifier_sees():
    model = network("deeplabv3").train()
    prediction = model(torch.randn(2, 3, 33, 47))
    assert torch.equal(prediction.logits, model.classifier(prediction.features))
    dropped = prediction.features.flatten(2).abs().sum(-1) == 0
    assert dropped.any(), "whole channels are dropped in training, and the features carry that"


def test_backbone_and_the_rest_part_the_parameters():
    model = network()
    backbone = {id(parameter) for parameter in model.backbone.parameters()}
    rest = [name for name, parameter in model.named_parameters() if id(parameter) not in backbone]
    assert {name.split(".")[0] for name in rest} == {"head", "classifier", "aux"}


def test_normalize_by_hand():
    model = network()
    assert (model.backbone.mean, model.backbone.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    pixels = torch.tensor([[[[0, 255, 51]]]], dtype=torch.uint8)
    assert model.normalize(pixels).flatten().tolist() == pytest.approx([-1.0, 1.0, -0.6])


def test_normalize_gives_float32_in_channels_last_memory_and_keeps_its_input():
    images = torch.randint(0, 256, (2, 9, 7, 3), dtype=torch.uint8)
    before = images.clone()
    normalised = network().normalize(images)
    assert normalised.shape == (2, 3, 9, 7)
    assert normalised.dtype == torch.float32
    assert normalised.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, before)


def test_mean_and_deviation_are_the_backbone_s_own():
    model = network(backbone="resnet10t")
    assert model.pixel_mean.flatten().tolist() == pytest.approx([123.675, 116.28, 103.53])
    assert model.pixel_std.flatten().tolist() == pytest.approx([58.395, 57.12, 57.375])


def test_one_tiny_image_in_training_is_refused_in_words():
    model = network().train()
    with pytest.raises(InputError) as raised:
        model(torch.randn(1, 3, 5, 8))
    assert str(raised.value) == (
        "cannot train on one image of 5×8 pixels at output stride 8: batch norm would see one value per channel; "
        "use a crop (data.crop) of more than 8 pixels, or a larger batch"
    )
    model(torch.randn(2, 3, 5, 8))
    model(torch.randn(1, 3, 5, 9))


def test_width_overrides_the_reference_s():
    assert network(width=24).head.out_channels == 24
    assert network(width=None).head.out_channels == 128
    assert network("unet", width=3).head.out_channels == 1
    assert network("segformer", width=None).head.out_channels == 256
