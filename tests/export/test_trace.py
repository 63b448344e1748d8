"""A traced network is the network: for every head, at any size, in every format."""

import numpy as np
import onnxruntime
import pytest
import torch
from timm.layers import padding

from segctl.errors import InputError
from segctl.export.formats import onnx_bytes
from segctl.export.trace import trace, trace_script
from segctl.models import at_label_size, load
from segctl.models.deployed import DeployedNetwork
from segctl.models.heads.blocks import BinMeans
from segctl.models.timm_backbone import _padding_in_whole_numbers
from segctl.models.tracing import traced_for_any_size
from segctl.programs import open_program
from segctl.programs.facts import DataFacts, ProgramFacts
from tests.models.specs import CLASS_NAMES, HEADS, network

SMALL_SIZES = ((97, 130), (180, 240), (1, 1), (3, 70))
SIZES = ((360, 480), (512, 1024), *SMALL_SIZES)


def settled(head="pspnet", **changes):
    """A network whose batch norms have seen pixels, so that its classes differ from place to place."""
    torch.manual_seed(3)
    model = network(head, **changes).train()
    for _ in range(3):
        model(torch.randn(2, 3, 70, 66))
    return model.eval()


def images(height, width, count=1):
    random = np.random.default_rng(height)
    coarse = random.integers(0, 256, (count, height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)[:, :height, :width].copy()


def logits_of(model, pictures):
    """The network run by hand: the slow reference."""
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    with torch.no_grad():
        prediction = model((pixels - model.pixel_mean) / model.pixel_std)
    return at_label_size(prediction.logits, pictures.shape[1:3]).numpy()


def require_same(found, wanted):
    """Labels of the highest logits; where two logits are all but equal, either."""
    chosen = np.take_along_axis(wanted, found[:, None].astype(np.int64), 1)[:, 0]
    assert (wanted.max(1) - chosen).max() <= 1e-4
    assert (found != wanted.argmax(1)).mean() <= 1e-3


OF_OTHER_BLOCKS = ("deeplabv3plus", "segformer", "upernet")
"""Between them they have what traced networks get wrong: dilated and strided maps, attention, bins of pooling."""


@pytest.mark.parametrize(
    "head", [head if head in OF_OTHER_BLOCKS else pytest.param(head, marks=pytest.mark.slow) for head in HEADS]
)
def test_torchscript_of_every_head_at_every_size(head):
    model = settled(head)
    program = trace_script(model, "labels", None)
    for size in SMALL_SIZES:
        pictures = images(*size)
        require_same(program(torch.from_numpy(pictures)).numpy(), logits_of(model, pictures))


def test_the_onnx_file_of_a_run_at_every_size(toy_export):
    model, program = load(toy_export), open_program(toy_export / "export" / "model.onnx")
    for size in SIZES:
        pictures = images(*size, 2 if size[0] < 100 else 1)
        require_same(program.labels(pictures), logits_of(model, pictures))


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_torch_export_and_onnx_of_every_head_at_every_size(head):
    model = settled(head)
    traced = trace(model, "labels", None).module()
    session = onnxruntime.InferenceSession(onnx_bytes(model, facts()), providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    assert session.get_outputs()[0].shape == ["batch", "height", "width"]
    for size in SIZES:
        for count in (1, 3) if size[0] < 100 else (1,):
            pictures = images(*size, count)
            wanted = logits_of(model, pictures)
            require_same(traced(torch.from_numpy(pictures)).numpy(), wanted)
            require_same(session.run(None, {"images": pictures})[0], wanted)


@pytest.mark.slow
def test_a_backbone_that_takes_multiples_alone_is_padded_inside():
    model = settled("deeplabv3", backbone="swinv2_cr_tiny_ns_224", output_stride=32)
    assert model.backbone._multiple == 32
    program = trace_script(model, "labels", None)
    for size in ((97, 130), (64, 64), (5, 3)):
        pictures = images(*size)
        require_same(program(torch.from_numpy(pictures)).numpy(), logits_of(model, pictures))


@pytest.mark.slow
def test_padding_that_depends_on_the_size_is_computed_inside():
    """TensorFlow's padding adds one pixel to even sides and two to odd ones, so it must not be that of the traced size."""
    model = settled("linear", backbone="tf_efficientnet_lite0", output_stride=8, stages=3, aux=False)
    traced = trace(model, "labels", None).module()
    script = trace_script(model, "labels", None)
    session = onnxruntime.InferenceSession(onnx_bytes(model, facts()), providers=["CPUExecutionProvider"])
    for size in ((97, 130), (45, 60), (46, 59), (64, 64), (1, 1)):
        pictures = images(*size)
        wanted = logits_of(model, pictures)
        require_same(traced(torch.from_numpy(pictures)).numpy(), wanted)
        require_same(script(torch.from_numpy(pictures)).numpy(), wanted)
        require_same(session.run(None, {"images": pictures})[0], wanted)


def test_logits_and_probabilities_are_those_of_the_network():
    model, pictures = settled(), images(41, 30, 2)
    wanted = logits_of(model, pictures)
    for output, expected in (("logits", wanted), ("probabilities", torch.from_numpy(wanted).softmax(1).numpy())):
        with torch.no_grad():
            np.testing.assert_allclose(DeployedNetwork(model, output)(torch.from_numpy(pictures)), expected, atol=1e-5)


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
def test_bins_of_a_traced_network_are_those_of_torch(bins):
    for height, width in ((1, 1), (2, 5), (6, 6), (7, 13), (45, 60)):
        maps = torch.randn(2, 3, height, width)
        with traced_for_any_size():
            found = BinMeans(bins)(maps)
        torch.testing.assert_close(found, torch.nn.functional.adaptive_avg_pool2d(maps, bins), atol=1e-6, rtol=1e-5)
    by_hand = torch.arange(4.0).view(1, 1, 1, 4)
    with traced_for_any_size():
        assert BinMeans(3)(by_hand)[0, 0, 0].tolist() == [0.5, 1.5, 2.5]


def test_padding_of_a_traced_network_is_timms():
    sizes = [
        (side, kernel, stride, dilation)
        for side in range(1, 30)
        for kernel in (1, 2, 3, 5)
        for stride in (1, 2, 3)
        for dilation in (1, 2)
    ]
    wanted = [padding.get_same_padding(*size) for size in sizes]
    with _padding_in_whole_numbers():
        assert [padding.get_same_padding(*size) for size in sizes] == wanted


def test_tracing_leaves_the_network_and_the_mode_alone():
    model = settled()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trace_script(model, "labels", None)
    assert model.aux is not None
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.slow
def test_a_network_that_decides_by_size_is_a_sentence():
    model = settled()
    model.head.forward = lambda maps, size: maps[-1] if size[0] > 50 else 1 / 0
    with pytest.raises(InputError, match=r"cannot be exported for images of 20×20 pixels: .*division"):
        trace(model, "labels", (20, 20))


def facts(**changes):
    return ProgramFacts(
        segctl="0", preset="toy", class_names=CLASS_NAMES, colors=[[0, 0, 0]] * 5, mean=[0.5] * 3, std=[0.2] * 3, output="labels",
        weights_sha256="0", data=DataFacts(dataset="toy"),
    ).model_copy(update=changes)  # fmt: skip
