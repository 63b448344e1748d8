"""timm names -> maps, and sentences where a name, a stride or its weights cannot be had."""

import time
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import constants

from segctl.errors import InputError
from segctl.models.timm_backbone import WAYS_OUT, build_backbone, fused
from tests.models.specs import network


def refused(*arguments) -> str:
    with pytest.raises(InputError) as raised:
        build_backbone(*arguments)
    return str(raised.value)


@pytest.mark.parametrize(
    ("name", "stride", "strides"),
    [
        ("test_resnet", 8, (2, 4, 8, 8, 8)),
        ("test_resnet", 16, (2, 4, 8, 16, 16)),
        ("test_resnet", 32, (2, 4, 8, 16, 32)),
        ("test_efficientnet", 8, (2, 4, 8, 8, 8)),
    ],
)
def test_strides_are_those_asked_for(name, stride, strides):
    assert build_backbone(name, stride, "none").strides == strides


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("dla46_c", 32),  # adds maps of several strides, so wants sides that 32 divides: images are padded
        pytest.param(
            "swin_tiny_patch4_window7_224", 32, marks=pytest.mark.slow
        ),  # made for one size, its maps with channels last
        ("test_vit", 16),  # a plain transformer: three maps of one stride
        ("test_mambaout", 32),  # its maps with channels last
    ],
)
def test_awkward_backbones_give_maps_for_any_size(name, stride):
    with torch.device("meta"):
        backbone = build_backbone(name, stride, "none").eval()
        for height, width in [(1, 1), (45, 67)]:
            shapes = [tuple(x.shape) for x in backbone(torch.zeros(2, 3, height, width))]
            layout = zip(backbone.channels, backbone.strides, strict=True)
            assert shapes == [(2, channels, -(-height // step), -(-width // step)) for channels, step in layout]


def test_misspelt_name():
    assert refused("resnet18dd", 8, "none") == (
        "model.backbone: timm knows no network 'resnet18dd', did you mean 'resnet18d'?; "
        "`timm.list_models()` in Python names them all"
    )


def test_misspelt_tag():
    message = refused("resnet18d.ra3_in1k", 8, "none")
    assert message.startswith("model.backbone: timm has no weights 'resnet18d.ra3_in1k', wanted 'resnet18d' or one of resnet18d.")


def test_known_tag_builds():
    assert build_backbone("test_resnet.r160_in1k", 32, "none").strides[-1] == 32


def test_stride_that_the_backbone_cannot_give():
    assert refused("vgg11", 8, "none") == (
        "model.output_stride: got 8, but 'vgg11' gives a last map of stride 32; "
        "change model.output_stride, or take another model.backbone, such as resnet18d"
    )


def test_backbone_for_fixed_sizes_only():
    assert refused("test_maxvit", 32, "none") == (
        "model.backbone: 'test_maxvit' takes only images of certain sizes, wanted a backbone for any size; "
        "use a convolutional one, such as resnet18d or mobilenetv2_100"
    )


def test_head_that_does_not_go_with_the_strides():
    with pytest.raises(InputError) as raised:
        network("unet", output_stride=8)
    assert str(raised.value) == (
        "model.head: 'unet' wants one map for each stride, the last of stride 32, got strides 2, 4, 8, 8, 8 from 'test_resnet'; "
        "change model.output_stride (32 for unet) or model.backbone, or use `--set model.head=deeplabv3`"
    )
    with pytest.raises(InputError, match="'deeplabv3plus' wants a map of stride 4, got strides 16, 16, 16 from 'test_vit'"):
        network("deeplabv3plus", output_stride=16, backbone="test_vit")


def test_unet_does_without_the_skips_a_backbone_lacks():
    model = network("unet", backbone="test_convnext").eval()
    assert model.backbone.strides == (4, 8, 16, 32)
    assert model(torch.randn(1, 3, 33, 47)).logits.shape == (1, 5, 33, 47)


@pytest.mark.parametrize(
    ("name", "head", "stride"),
    [
        ("mobilenetv4_conv_small", "lraspp", 16),
        pytest.param("tf_efficientnet_lite0", "lraspp", 32, marks=pytest.mark.slow),
        pytest.param("mobilenetv3_large_100", "lraspp", 16, marks=pytest.mark.slow),
        pytest.param("repvit_m0_9", "segformer", 32, marks=pytest.mark.slow),
        ("efficientvit_b0", "upernet", 32),
        # timm's nearest to SegFormer's MiT-B0: the same four widths, attention to a reduced map
        pytest.param("pvt_v2_b0", "segformer", 32, marks=pytest.mark.slow),
        pytest.param("convnext_atto", "fpn", 32, marks=pytest.mark.slow),
    ],
)
def test_small_backbones_go_with_the_small_heads_at_any_size(name, head, stride):
    model = network(head, backbone=name, output_stride=stride).eval()
    with torch.no_grad():
        logits = model(torch.randn(1, 3, 33, 50)).logits
    assert logits.shape == (1, 5, *((5, 7) if head == "lraspp" else (9, 13)))
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("name", "stride"),
    [
        pytest.param("repvit_m0_9", 32, marks=pytest.mark.slow),
        pytest.param("mobileone_s0", 16, marks=pytest.mark.slow),
        pytest.param("fastvit_t8", 32, marks=pytest.mark.slow),
        ("repghostnet_050", 32),
        ("test_resnet", 8),
    ],
)
def test_fused_blocks_give_the_same_logits(name, stride):
    torch.manual_seed(0)
    model = network("lraspp", backbone=name, output_stride=stride).train()
    images = torch.randn(2, 3, 65, 50)
    with torch.no_grad():
        for norm in (layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)):
            norm.momentum = None  # the mean over all batches: a fresh norm's statistics would let the activations explode
            norm.reset_running_stats()
        model(images)
        found, wanted = fused(model)(images).logits, model.eval()(images).logits
    assert (found - wanted).abs().max() <= 5e-4 * wanted.abs().max()  # float32 rounds by some 1e-5, seldom by 1e-4


def test_fusing_leaves_the_model_and_its_mode_alone():
    model = network("lraspp", backbone="repvit_m0_9", output_stride=32).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    small = fused(model)
    assert model.training
    assert not small.training
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert len(small.state_dict()) < len(before), "each block is one convolution"


@pytest.mark.parametrize(
    ("name", "stages", "stride"),
    [
        pytest.param("tf_efficientnet_lite0", 4, 16, marks=pytest.mark.slow),
        pytest.param("mobilenetv3_large_100", 4, 16, marks=pytest.mark.slow),
        ("resnet18d", 4, 16),
        pytest.param("repvit_m0_9", 3, 16, marks=pytest.mark.slow),
    ],
)
def test_layers_behind_the_last_map_that_is_kept_are_cut_off(name, stages, stride):
    whole, cut = build_backbone(name, 32, "none").eval(), build_backbone(name, stride, "none", stages).eval()
    assert (cut.channels, cut.strides) == (whole.channels[:stages], whole.strides[:stages])
    cut.load_state_dict({key: whole.state_dict()[key] for key in cut.state_dict()})
    images = torch.randn(1, 3, 65, 50)
    with torch.no_grad():
        found, wanted = cut(images), whole(images)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=False))
    cut.train()(images.repeat(2, 1, 1, 1))[-1].square().mean().backward()
    assert all(parameter.grad is not None for parameter in cut.parameters()), "no layer is left that the last map does not need"


def test_a_cut_backbone_takes_the_weights_of_the_whole_one(tmp_path):
    import timm

    whole = timm.create_model("tf_efficientnet_lite0")
    torch.save(whole.state_dict(), tmp_path / "weights.pt")
    cut = build_backbone("tf_efficientnet_lite0", 16, str(tmp_path / "weights.pt"), 4)
    state = whole.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in cut.net.state_dict().items())


@pytest.mark.parametrize(
    ("stages", "stride", "words"),
    [
        (9, 32, "model.stages: got 9, but 'resnet18d' gives 5 maps; use at most 5, or null for all of them"),
        (4, 32, "got 32, but 'resnet18d' gives a last map of stride 8 or 16 with model.stages 4; change model.output_stride"),
    ],
)
def test_stages_that_a_backbone_does_not_have(stages, stride, words):
    with pytest.raises(InputError) as raised:
        build_backbone("resnet18d", stride, "none", stages)
    assert words in str(raised.value)


def test_probing_leaves_the_random_state_alone():
    torch.manual_seed(0)
    first = build_backbone("test_efficientnet", 32, "none").state_dict()  # probed here, unless a test before did
    torch.manual_seed(0)
    second = build_backbone("test_efficientnet", 32, "none").state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


# weights: timm


def save_in_cache(folder: Path, repository: str, state: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    entry = folder / f"models--{repository.replace('/', '--')}"
    (entry / "snapshots" / "0").mkdir(parents=True)
    (entry / "refs").mkdir()
    (entry / "refs" / "main").write_text("0")
    save_file(state, entry / "snapshots" / "0" / "model.safetensors")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """An absent hub and an empty cache."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_absent_hub_is_told_at_once_with_both_ways_out(hub):
    start = time.monotonic()
    assert refused("test_resnet", 8, "timm") == (
        "model.weights: cannot download the weights of 'test_resnet', because http://127.0.0.1:9 does not answer; "
        "start from random weights with `--set model.weights=none`, or from a local file with `--set model.weights=PATH`"
    )
    assert time.monotonic() - start < 5


def test_cached_weights_need_no_hub(hub):
    whole = timm.create_model("test_resnet").state_dict()
    save_in_cache(hub, timm.get_pretrained_cfg("test_resnet").hf_hub_id, whole)
    backbone = build_backbone("test_resnet", 8, "timm")
    assert backbone.weights_file == next(hub.rglob("model.safetensors"))
    assert build_backbone("test_resnet", 8, "none").weights_file is None
    net = backbone.net
    assert all(torch.equal(tensor, whole[name]) for name, tensor in net.state_dict().items())


def test_damaged_cache_is_told(hub):
    repository = timm.get_pretrained_cfg("test_resnet").hf_hub_id
    save_in_cache(hub, repository, {"conv1.weight": torch.zeros(9)})
    file = next(hub.rglob("model.safetensors"))
    file.write_bytes(file.read_bytes()[:-4])
    message = refused("test_resnet", 8, "timm")
    assert message.startswith(f"model.weights: cannot get the weights of 'test_resnet' from {file}: ")
    assert message.endswith(WAYS_OUT)


def test_network_without_weights_in_timm(hub):
    assert refused("cs3darknet_s", 32, "timm").startswith(
        "model.weights: timm has no weights for 'cs3darknet_s'; start from random"
    )


# weights: a file


@pytest.fixture(scope="module")
def whole():
    torch.manual_seed(7)
    return timm.create_model("test_resnet").state_dict()


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])  # the second leaves its last convolution aside too
def test_file_of_a_whole_timm_network_fills_the_backbone(name, tmp_path):
    state = timm.create_model(name).state_dict()
    torch.save(state, tmp_path / "weights.pth")
    net = build_backbone(name, 8, str(tmp_path / "weights.pth")).net
    assert all(torch.equal(tensor, state[key]) for key, tensor in net.state_dict().items())


def test_missing_file(tmp_path):
    assert refused("test_resnet", 8, "tim") == (
        "model.weights: no file at 'tim', did you mean 'timm'?; give timm, none, or a file of backbone weights"
    )
    assert refused("test_resnet", 8, str(tmp_path)).startswith(f"model.weights: no file at '{tmp_path}'; give")


def test_file_with_missing_weights(whole, tmp_path):
    partial = {name: tensor for name, tensor in whole.items() if not name.startswith(("layer4.0.conv1", "layer4.0.bn1"))}
    torch.save(partial, tmp_path / "weights.pth")
    message = refused("test_resnet", 8, str(tmp_path / "weights.pth"))
    assert " does not fit 'test_resnet': " in message
    assert "weights are missing (layer4.0.conv1.weight, layer4.0.bn1.weight, layer4.0.bn1.bias, …)" in message
    assert message.endswith("give a file of timm's 'test_resnet', or `--set model.weights=none`")


def test_file_of_a_deeper_network_is_refused_although_it_holds_every_name(whole, tmp_path):
    deeper = {**whole, "layer4.5.conv1.weight": torch.zeros(3)}
    torch.save(deeper, tmp_path / "weights.pth")
    message = refused("test_resnet", 8, str(tmp_path / "weights.pth"))
    assert f"1 of its {len(deeper)} weights are of another network (layer4.5.conv1.weight)" in message
