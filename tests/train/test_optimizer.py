"""Learning rates by hand, and which parameters decay."""

import pytest
import torch
from torch import nn
from toy import toy_run

from segctl.schema.load import load_preset
from segctl.schema.optim import AdamWSpec, SGDSpec
from segctl.schema.schedule import PolySpec
from segctl.train.optimizer import build_optimizer, schedule_factor, set_learning_rates


def network() -> nn.ModuleDict:
    return nn.ModuleDict({"backbone": nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)), "head": nn.Conv2d(4, 2, 1)})


def test_poly_goes_from_the_peak_to_zero() -> None:
    spec = PolySpec(power=0.9)
    assert schedule_factor(spec, 0, 100) == 1
    assert schedule_factor(spec, 50, 100) == pytest.approx(0.5**0.9)
    assert schedule_factor(spec, 99, 100) == pytest.approx(0.01**0.9)


def test_warm_up_is_that_of_the_jml_recipe() -> None:
    spec = load_preset("cityscapes-psp18").schedule
    assert schedule_factor(spec, 0, 40000) == pytest.approx(1 / 60, abs=1e-6)
    assert schedule_factor(spec, 200, 40000) == pytest.approx(0.5)
    assert schedule_factor(spec, 400, 40000) == 1
    assert schedule_factor(spec, 400 + 19800, 40000) == pytest.approx(0.5)


def test_the_floor_is_where_the_decay_ends_for_every_group() -> None:
    optimizer = build_optimizer(SGDSpec(lr=0.1, head_lr_factor=10), network(), network()["backbone"])
    set_learning_rates(optimizer, PolySpec(power=1, floor_lr=0.01), 50, 100)
    for group in optimizer.param_groups:
        assert group["lr"] == pytest.approx(0.01 + (group["peak_lr"] - 0.01) * 0.5)


def test_the_head_learns_at_its_multiple() -> None:
    model = network()
    optimizer = build_optimizer(AdamWSpec(lr=1e-3, head_lr_factor=10), model, model["backbone"])
    rates = {id(parameter): group["peak_lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert {rates[id(parameter)] for parameter in model["backbone"].parameters()} == {1e-3}
    assert {rates[id(parameter)] for parameter in model["head"].parameters()} == {1e-2}


@pytest.mark.parametrize(("decays", "expected"), [(True, 0.01), (False, 0.0)])
def test_norms_and_biases_decay_only_when_told(decays: bool, expected: float) -> None:
    model = network()
    spec = AdamWSpec(lr=1e-3, weight_decay=0.01, decay_norm_and_bias=decays)
    for group in build_optimizer(spec, model, model["backbone"]).param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.01 if parameter.ndim > 1 else expected)


def test_every_parameter_is_in_exactly_one_group() -> None:
    model = network()
    optimizer = build_optimizer(toy_run().optim, model, model["backbone"])
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters())


def test_frozen_parameters_are_left_out() -> None:
    model = network()
    model["backbone"].requires_grad_(False)
    groups = build_optimizer(SGDSpec(lr=0.1), model, model["backbone"]).param_groups
    assert all(parameter.requires_grad for group in groups for parameter in group["params"])
    assert torch.is_tensor(groups[0]["params"][0])
