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
from segctl.models.external.foreign import Facts, ForeignNetwork, class_order, load_program, main_and_aux, read_facts

LOGITS, AUX, FEATURES = torch.zeros(2, 5, 3, 4), torch.ones(2, 5, 3, 4), torch.zeros(2, 7, 3, 4)


@pytest.mark.parametrize(
    ("answer", "has_aux"),
    [
        (LOGITS, False),
        ((LOGITS,), False),
        ([LOGITS, AUX], True),
        ((LOGITS, AUX, AUX, AUX), True),
        ((LOGITS, FEATURES), False),
        ({"out": LOGITS}, False),
        ({"out": LOGITS, "aux": AUX}, True),
        ({"logits": LOGITS}, False),
        (SimpleNamespace(logits=LOGITS), False),
    ],
    ids=str,
)
def test_logits_are_found_in_every_usual_answer(answer: Any, has_aux: bool) -> None:
    logits, aux = main_and_aux(answer)
    assert logits is LOGITS
    assert (aux is AUX) if has_aux else (aux is None)


@pytest.mark.parametrize(
    ("answer", "got"), [((), "tuple"), ({}, "dict"), (torch.zeros(3, 4), "(3, 4) of torch.float32"), (None, "NoneType")]
)
def test_an_answer_without_logits_is_named(answer: Any, got: str) -> None:
    with pytest.raises(InputError) as error:
        main_and_aux(answer)
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
