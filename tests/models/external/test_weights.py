"""Reading files of weights, the broken ones included."""

import argparse
import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from segctl.errors import InputError
from segctl.models.external.weights import fill_backbone, fill_network, find_weights, first_misfit, read_tables, unpickled
from tests.models.specs import network


def weights():
    return {"conv.weight": torch.arange(4.0), "bn.weight": torch.ones(2), "bn.num_batches_tracked": torch.tensor(3)}


def same(got, wanted):
    return got.keys() == wanted.keys() and all(torch.equal(got[name], wanted[name]) for name in wanted)


def under(prefix, table):
    return {f"{prefix}{name}": tensor for name, tensor in table.items()}


OTHER = {name: tensor + 1 for name, tensor in weights().items()}
WRAPPINGS = {
    "plain": (lambda w: w, ""),
    "state_dict": (lambda w: {"state_dict": w, "epoch": 3}, "under 'state_dict'"),
    "data-parallel": (lambda w: {"model": under("module.", w)}, "under 'model', without the prefix 'module.'"),
    "whole network": (
        lambda w: {"state_dict": {"decode_head.weight": torch.zeros(1), **under("backbone.", w)}},
        "under 'state_dict', without the prefix 'backbone.', leaving 1 other names aside (decode_head.weight)",
    ),
    "averaged": (lambda w: {"state_dict": OTHER, "state_dict_ema": w}, "under 'state_dict_ema'"),
    "compiled": (lambda w: under("_orig_mod.", w), "without the prefix '_orig_mod.'"),
    "compiled, data-parallel": (lambda w: under("module._orig_mod.", w), "without the prefix 'module._orig_mod.'"),
    "AveragedModel": (
        lambda w: {"n_averaged": torch.tensor(3), **under("module.", w)},
        "without the prefix 'module.', leaving 1 other names aside (n_averaged)",
    ),
    "ema-pytorch": (
        lambda w: {**under("online_model.", OTHER), **under("ema_model.", w)},
        "without the prefix 'ema_model.', leaving 3 other names aside "
        "(online_model.conv.weight, online_model.bn.weight, online_model.bn.num_batches_tracked)",
    ),
    "ema key": (lambda w: {"model": OTHER, "ema": w}, "under 'ema'"),
    "model_state_dict": (
        lambda w: {"model_state_dict": w, "optimizer": {"state": {0: {"step": torch.ones(1)}}}},
        "under 'model_state_dict'",
    ),
    "an unknown key, deep": (
        lambda w: {"job": {"nets": {"it": under("inner.net.", w)}}},
        "under 'job.nets.it', without the prefix 'inner.net.'",
    ),
    "timm's train.py": (
        lambda w: {"state_dict": w, "args": argparse.Namespace(lr=0.1), "metric": np.float64(0.5)},
        "under 'state_dict'",
    ),
}


@pytest.mark.parametrize(("wrap", "note"), WRAPPINGS.values(), ids=WRAPPINGS.keys())
def test_the_one_prefix_under_which_all_names_stand_is_removed_and_said(wrap, note, tmp_path):
    file = tmp_path / "w.pth"
    torch.save(wrap(weights()), file)
    found = find_weights(file, weights())
    assert same(found.table, weights())
    assert found.note(file) == (f"the weights in '{file}' are read {note}" if note else "")


def test_two_copies_of_a_network_are_not_guessed_between(tmp_path):
    torch.save({**under("first.", weights()), **under("second.", OTHER)}, tmp_path / "w.pth")
    with pytest.raises(
        InputError, match=r"holds the network 2 times, under 'first\.' and 'second\.'; save the weights of only one"
    ):
        find_weights(tmp_path / "w.pth", weights())


def test_objects_that_could_run_code_are_named_with_the_way_out(tmp_path):
    torch.save({"state_dict": weights(), "where": Path("x")}, tmp_path / "w.pth")
    named = r"holds objects beside its weights \(pathlib.*\), and reading them could run code; "
    with pytest.raises(InputError, match=named + "where the file was made, save only the weights"):
        unpickled(tmp_path / "w.pth")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(bad, tmp_path):
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))
    state = net.state_dict()
    state["0.bias"] = torch.full((1,), bad)
    torch.save(state, tmp_path / "w.pth")
    for fill in (lambda: fill_network(net, tmp_path / "w.pth"), lambda: fill_backbone(net, state, tmp_path / "w.pth")):
        with pytest.raises(InputError, match=r"1 of \d weights hold NaN or infinite numbers \(0.bias\)"):
            fill()


def test_safetensors_are_read(tmp_path):
    save_file(weights(), tmp_path / "w.safetensors")
    assert same(find_weights(tmp_path / "w.safetensors", weights()).table, weights())


def test_a_network_s_own_file_gives_its_backbone(tmp_path):
    model = network()
    torch.save({"run": {}, "class_names": [], "weights": model.state_dict()}, tmp_path / "model.pt")
    wanted = model.backbone.net.state_dict()
    assert same(find_weights(tmp_path / "model.pt", wanted).table, wanted)


def test_damaged_safetensors(tmp_path):
    file = tmp_path / "w.safetensors"
    save_file(weights(), file)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(InputError) as raised:
        read_tables(file)
    assert str(raised.value) == f"cannot read '{file}': it is damaged, cut short, or not a .safetensors file"


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
        str(raised.value)
        == f"cannot read '{tmp_path / 'w.pth'}': it is damaged, cut short, or not a PyTorch file of plain weights"
    )


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {}, {"state_dict": {}}, torch.zeros(2)])
def test_file_without_weights(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError) as raised:
        read_tables(tmp_path / "w.pth")
    assert str(raised.value) == (
        f"'{tmp_path / 'w.pth'}' holds no weights: wanted a mapping of names to tensors; save a network's state_dict()"
    )


def small_net():
    return torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))


def test_classifier_keys_do_not_matter_and_counters_may_lack(tmp_path):
    net = small_net()
    state = {name: tensor + 1.0 for name, tensor in net.state_dict().items() if "num_batches" not in name}
    torch.save({**state, "fc.weight": torch.zeros(1), "classifier.bias": torch.zeros(1)}, tmp_path / "w.pth")
    assert fill_backbone(net, net.state_dict(), tmp_path / "w.pth").problem == ""
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in state.items())


def test_a_projection_head_is_left_aside_but_a_longer_network_is_another(tmp_path):
    net = small_net()
    state = net.state_dict()
    torch.save({**state, "prototypes.weight": torch.zeros(3)}, tmp_path / "w.pth")
    assert "leaving 1 other names aside (prototypes.weight)" in fill_backbone(net, state, tmp_path / "w.pth").note
    torch.save({**state, "1.more": torch.zeros(3)}, tmp_path / "w.pth")
    assert fill_backbone(net, state, tmp_path / "w.pth").problem == "1 of its 8 weights are of another network (1.more)"


def test_misfits_are_named():
    wanted = {"a": torch.zeros(2, 3), "b": torch.zeros(())}
    assert first_misfit(wanted, dict(wanted)) == ""
    assert first_misfit(wanted, {"a": torch.zeros(2, 3)}) == "1 of 2 weights are missing (b)"
    assert first_misfit(wanted, {**wanted, "c": torch.zeros(1)}) == "1 weights are unknown (c)"
    assert first_misfit(wanted, {**wanted, "a": torch.zeros(3, 2)}) == "a is 3×2, wanted 2×3"
    assert first_misfit(wanted, {**wanted, "b": torch.zeros(1)}) == "b is 1, wanted one number"


def test_sparse_weights_are_filled_in(tmp_path: Path) -> None:
    net, other = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save({name: tensor.detach().to_sparse() for name, tensor in net.state_dict().items()}, tmp_path / "sparse.pt")
    assert fill_network(other, tmp_path / "sparse.pt").problem == ""
    assert torch.equal(other.weight, net.weight)


@pytest.mark.parametrize("kind", ["without values (meta)", "quantised"])
def test_tensors_without_plain_numbers_are_refused(kind: str, tmp_path: Path) -> None:
    net = nn.Linear(3, 2)
    if kind == "quantised":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch will give up its own quantised tensors
            weight = torch.quantize_per_tensor(net.weight.detach(), 0.1, 0, torch.qint8)
    else:
        weight = net.weight.detach().to("meta")
    torch.save({"weight": weight, "bias": net.bias.detach()}, tmp_path / "odd.pt")
    with pytest.raises(InputError) as error:
        fill_network(net, tmp_path / "odd.pt")
    assert error.value.message == f"'{tmp_path / 'odd.pt'}': weight is a tensor {kind}, wanted plain numbers"
