"""What foreign networks may answer with, and what is said of files that do not fit."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.export import Dim

from segctl.errors import InputError
from segctl.files import archive_kind
from segctl.models.external.foreign import Answer, Facts, ForeignNetwork, class_order, load_program, read_facts
from segctl.models.outputs import Outputs

LOGITS, AUX, FEATURES = torch.zeros(2, 5, 3, 4), torch.ones(2, 5, 3, 4), torch.zeros(2, 7, 3, 4)


@pytest.mark.parametrize(
    ("answer", "has_aux", "has_features"),
    [
        (LOGITS, False, False),
        ((LOGITS,), False, False),
        ([LOGITS, AUX], True, False),
        ((LOGITS, AUX, AUX, AUX), True, False),
        ((LOGITS, FEATURES), False, True),
        ([LOGITS, AUX, FEATURES], True, True),
        ((LOGITS, None, FEATURES), False, True),
        ((LOGITS, AUX, torch.zeros(2, 7), FEATURES[:1]), True, False),
        ((LOGITS, AUX, torch.zeros(2, 7, 3, 4, dtype=torch.int64)), True, False),
        ({"out": LOGITS}, False, False),
        ({"out": LOGITS, "aux": AUX}, True, False),
        ({"out": LOGITS, "aux": AUX, "features": FEATURES}, True, True),
        ({"logits": LOGITS}, False, False),
        (SimpleNamespace(logits=LOGITS), False, False),
        (SimpleNamespace(logits=LOGITS, features=FEATURES), False, True),
    ],
    ids=str,
)
def test_logits_and_features_are_found_in_every_usual_answer(answer: Any, has_aux: bool, has_features: bool) -> None:
    found = Answer.of(answer)
    assert found.logits is LOGITS
    assert (found.aux_logits is AUX) if has_aux else (found.aux_logits is None)
    assert (found.features is FEATURES) if has_features else (found.features is None)


def test_features_that_are_no_map_are_named() -> None:
    with pytest.raises(InputError) as error:
        Answer.of({"out": LOGITS, "features": torch.zeros(2, 7)})
    assert (
        error.value.message
        == "the network's output 'features' is (2, 7) of torch.float32, wanted a floating point map (2, D, h, w)"
    )


@pytest.mark.parametrize(
    ("answer", "got"), [((), "tuple"), ({}, "dict"), (torch.zeros(3, 4), "(3, 4) of torch.float32"), (None, "NoneType")]
)
def test_an_answer_without_logits_is_named(answer: Any, got: str) -> None:
    with pytest.raises(InputError) as error:
        Answer.of(answer)
    assert error.value.message == f"the network returns {got}, wanted logits (B, C, h, w)"


def test_names_are_matched_whatever_their_case_and_punctuation() -> None:
    assert class_order(["Traffic_Light", "ROAD", "side walk"], ["road", "traffic light"], "it") == [1, 0]


def test_a_name_that_appears_twice_is_its_first() -> None:
    assert class_order(["other", "road", "other"], ["other"], "it") == [0]


def test_missing_classes_are_listed() -> None:
    with pytest.raises(InputError) as error:
        class_order(["road"], ["road", "sky", "tree"], "'teacher.pt'")
    assert error.value.message == "'teacher.pt' knows 1 classes (road), wanted 3 (road, sky, tree)"
    assert error.value.hint == "give a network trained on the same dataset; it lacks sky, tree"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot read"),
        ("[]", "is damaged: it holds a list, wanted an object with fields"),
        ('{"mean": ["a", 1, 2]}', "mean.0 is 'a', wanted a valid number"),
        ('{"std": [1, 1]}', "std.2 is missing"),
        ('{"mean": [123.675, 116.28, 103.53]}', "are not those of pixels from 0 to 1"),
        ('{"std": [58.4, 57.1, 57.4]}', "are not those of pixels from 0 to 1"),
        ('{"mean": [NaN, 0, 0]}', "wanted finite numbers, std above 0"),
        ('{"class_names": "road"}', "class_names is 'road', wanted a valid array"),
        ('{"chanels": "bgr"}', "chanels"),
        ('{"channels": "gbr"}', "channels is 'gbr', wanted 'rgb' or 'bgr'"),
        ('{"pixels": 100}', "pixels is 100, wanted 1 or 255"),
        ('{"pixels": 255, "mean": [104, 117, 123]}', "pixels is 255 without mean and std"),
        ('{"pixels": 255, "mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]}', "is that of pixels from 0 to 1, but pixels is 255"),
        ('{"multiple": 0}', "multiple is 0, wanted greater than or equal to 1"),
        ("[" * 100_000, "cannot read"),
        ('{"std": [1, 0, 1]}', "std (1.0, 0.0, 1.0), wanted finite numbers, std above 0"),
    ],
)
def test_facts_that_are_none_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "teacher.json").write_text(content, encoding="utf-8")
    with pytest.raises(InputError) as error:
        read_facts(tmp_path / "teacher.json")
    assert message in error.value.message


def test_a_program_with_a_flipped_bit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    torch.jit.save(torch.jit.script(nn.Conv2d(3, 64, 3)), path)
    content = bytearray(path.read_bytes())
    weights = torch.jit.load(path).weight.detach().numpy().tobytes()
    content[content.index(weights) + 100] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"is damaged: '.*' in it does not match its checksum"):
        load_program(path, ["road"], trusted=True)


def test_plain_weights_are_no_program(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "plain.pt")
    (tmp_path / "text.pt").write_text("no archive", encoding="utf-8")
    assert archive_kind(tmp_path / "plain.pt") == archive_kind(tmp_path / "text.pt") == ""


def test_blue_first_pixels_minus_a_mean_are_what_the_published_networks_were_trained_on(tmp_path: Path) -> None:
    """The file of the docstring against the arithmetic of CIRKD's dataset: cv2's BGR as float32 minus the mean."""
    mean = [104.00698793, 116.66876762, 122.67891434]
    text = f'{{"channels": "bgr", "pixels": 255, "mean": {mean}, "std": [1, 1, 1], "align_corners": true}}'
    (tmp_path / "teacher.json").write_text(text, encoding="utf-8")
    network = ForeignNetwork(nn.Identity(), read_facts(tmp_path / "teacher.json"), ["a", "b", "c"], [0, 1, 2])
    rgb = torch.tensor([[[[10, 20, 30], [255, 0, 128]]]], dtype=torch.uint8)
    wanted = torch.tensor([[[[30 - mean[0], 128 - mean[0]]], [[20 - mean[1], -mean[1]]], [[10 - mean[2], 255 - mean[2]]]]])
    torch.testing.assert_close(network.normalize(rgb), wanted, rtol=0, atol=2e-5)
    assert network(network.normalize(rgb)).align_corners


def test_imagenets_numbers_turn_with_the_channels(tmp_path: Path) -> None:
    (tmp_path / "teacher.json").write_text('{"channels": "bgr"}', encoding="utf-8")
    facts = read_facts(tmp_path / "teacher.json")
    assert (facts.flips_channels, list(facts.mean), list(facts.std)) == (True, [0.406, 0.456, 0.485], [0.225, 0.224, 0.229])
    assert Facts().mean == (0.485, 0.456, 0.406)


class Pooled(nn.Module):
    """Logits at a quarter of the image's size, and their input."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        small = nn.functional.avg_pool2d(x, 4)
        return small, torch.cat([small, small], 1)


@pytest.mark.parametrize("aligned", [False, True])
def test_padding_is_cut_where_the_network_itself_would_have_put_the_pixels(aligned: bool) -> None:
    """10 by 12 pixels, padded to 16 by 16: the upsampled logits are the padded image's, cut at the pixel."""
    facts = Facts(mean=(0, 0, 0), std=(1 / 255,) * 3, multiple=8, align_corners=aligned)
    network = ForeignNetwork(Pooled(), facts, ["a", "b", "c"], [0, 1, 2])
    images = torch.randint(0, 256, (1, 10, 12, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = network(network.normalize(images))
    padded = nn.functional.pad(images.permute(0, 3, 1, 2).float(), (0, 4, 0, 6))
    small = nn.functional.avg_pool2d(padded, 4)
    wanted = nn.functional.interpolate(small, size=(16, 16), mode="bilinear", align_corners=aligned)[..., :10, :12]
    torch.testing.assert_close(Outputs(found, (10, 12)).upsampled("main"), wanted)
    assert found.features is not None
    assert found.features.shape[1] == 6


@pytest.mark.parametrize("kind", ["torchscript", "export"])
def test_a_program_gives_its_features_and_says_which_output_they_are(kind: str, tmp_path: Path) -> None:
    path, images = tmp_path / "teacher.pt", torch.zeros(1, 16, 16, 3, dtype=torch.uint8)
    if kind == "torchscript":
        torch.jit.save(torch.jit.script(Pooled()), path)
    else:
        torch.export.save(torch.export.export(Pooled(), (torch.zeros(1, 3, 16, 16),)), path)
    network = load_program(path, ["a", "b", "c"], trusted=True)
    assert network.recognise(images).endswith(
        "the teacher's output number 2 (6 channels, 4×4) is taken as its last classifier's input"
    )
    features = network(network.normalize(images)).features
    assert features is not None
    assert features.shape == (1, 6, 4, 4)


class MakesTensors(nn.Module):
    """Tensors of the images' device, of which an exported program keeps the name."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(3, 4, 1)
        self.constant = torch.tensor([1.0, 2.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ramp = torch.linspace(0, 1, 5, device=x.device).mean() + torch.arange(x.shape[-1], device=x.device).to(x.device)
        return self.classifier(x) + ramp + self.constant.sum() + torch.tensor([3.0])


def test_an_exported_program_moves_with_the_device_that_it_names(tmp_path: Path) -> None:
    sizes = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)
    torch.export.save(
        torch.export.export(MakesTensors().eval(), (torch.zeros(2, 3, 8, 12),), dynamic_shapes=sizes), tmp_path / "t.pt2"
    )
    network = load_program(tmp_path / "t.pt2", list("abcd"), trusted=True)
    images = torch.zeros(1, 3, 6, 10)
    before = network(images).logits
    assert network.to("meta")(images.to("meta")).logits.device.type == "meta"  # a device that refuses the CPU's tensors too
    assert "device(type='cpu')" not in network.net.code
    assert before.shape == (1, 4, 6, 10)


def test_a_program_that_keeps_to_the_device_of_its_trace_says_so() -> None:
    class Traced(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!")

    network = ForeignNetwork(Traced(), Facts(), list("abcd"), range(4))
    with pytest.raises(InputError) as caught:
        network(torch.zeros(1, 3, 6, 10))
    assert caught.value.message.startswith("the network makes tensors on another device than cpu, most likely on the one where")
    assert "torch.jit.script" in caught.value.hint
    assert "dynamic shapes" not in caught.value.hint
