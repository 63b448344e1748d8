"""Reading files of weights, the broken ones included."""

import pickle

import pytest
import torch
from safetensors.torch import save_file

from segctl.errors import InputError
from segctl.models.external.weights import fill_backbone, first_misfit, read_backbone_file, unpickled
from tests.models.specs import network


def weights():
    return {"conv.weight": torch.arange(4.0), "bn.num_batches_tracked": torch.tensor(3)}


def same(got, wanted):
    return got.keys() == wanted.keys() and all(torch.equal(got[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: w,
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"model": {f"module.{name}": tensor for name, tensor in w.items()}},
        lambda w: {"state_dict": {"decode_head.weight": torch.zeros(1), **{f"backbone.{name}": t for name, t in w.items()}}},
        lambda w: {"state_dict": {name: tensor + 1 for name, tensor in w.items()}, "state_dict_ema": w},
    ],
    ids=["plain", "state_dict", "data-parallel", "whole network", "averaged"],
)
def test_common_wrappings_are_opened(wrap, tmp_path):
    torch.save(wrap(weights()), tmp_path / "w.pth")
    assert same(read_backbone_file(tmp_path / "w.pth"), weights())


def test_safetensors_are_read(tmp_path):
    save_file(weights(), tmp_path / "w.safetensors")
    assert same(read_backbone_file(tmp_path / "w.safetensors"), weights())


def test_a_network_s_own_file_gives_its_backbone(tmp_path):
    model = network()
    torch.save({"run": {}, "class_names": [], "weights": model.state_dict()}, tmp_path / "model.pt")
    assert same(read_backbone_file(tmp_path / "model.pt"), model.backbone.net.state_dict())


def test_damaged_safetensors(tmp_path):
    file = tmp_path / "w.safetensors"
    save_file(weights(), file)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError) as raised:
        read_backbone_file(file)
    assert str(raised.value) == f"cannot read '{file}': it is damaged, cut short, or no .safetensors file"


class Stranger:
    """An object that plain weights do not hold."""


def truncated():
    from io import BytesIO

    torch.save(weights(), buffer := BytesIO())
    return buffer.getvalue()[:-30]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize(
    "content",
    [b"", b"hello", truncated(), b"PK\x03\x04" + bytes(50), bytes(range(256)) * 8, pickle.dumps(Stranger()), pickle.dumps([1])],
    ids=["empty", "text", "truncated", "broken zip", "noise", "foreign object", "plain pickle"],
)
def test_what_is_no_file_of_weights_is_told_in_words(content, tmp_path):
    (tmp_path / "w.pth").write_bytes(content)
    with pytest.raises(InputError) as raised:
        unpickled(tmp_path / "w.pth")
    assert (
        str(raised.value) == f"cannot read '{tmp_path / 'w.pth'}': it is damaged, cut short, or no PyTorch file of plain weights"
    )


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, {"state_dict": {}}, torch.zeros(2)])
def test_file_without_weights(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError) as raised:
        read_backbone_file(tmp_path / "w.pth")
    assert str(raised.value) == (
        f"'{tmp_path / 'w.pth'}' holds no weights: wanted a mapping of names to tensors; save a network's state_dict()"
    )


def test_classifier_keys_do_not_matter_and_counters_may_lack():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))
    state = {name: tensor + 1.0 for name, tensor in net.state_dict().items() if "num_batches" not in name}
    assert fill_backbone(net, net.state_dict(), {**state, "fc.weight": torch.zeros(1), "classifier.bias": torch.zeros(1)}) == ""
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in state.items())


def test_misfits_are_named():
    wanted = {"a": torch.zeros(2, 3), "b": torch.zeros(())}
    assert first_misfit(wanted, dict(wanted)) == ""
    assert first_misfit(wanted, {"a": torch.zeros(2, 3)}) == "1 of 2 weights are missing (b)"
    assert first_misfit(wanted, {**wanted, "c": torch.zeros(1)}) == "1 weights are unknown (c)"
    assert first_misfit(wanted, {**wanted, "a": torch.zeros(3, 2)}) == "a is 3×2, wanted 2×3"
    assert first_misfit(wanted, {**wanted, "b": torch.zeros(1)}) == "b is 1, wanted one number"
