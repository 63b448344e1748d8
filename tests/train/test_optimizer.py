"""Learning rates by hand and as torch's schedulers have them, optimisers, and which parameters decay."""

import copy

import pytest
import torch
from torch import nn
from toy import toy_run

from segctl.errors import InputError
from segctl.schema.load import load_preset
from segctl.schema.optim import AdamSpec, AdamWSpec, OptimSpec, SGDSpec, TimmSpec
from segctl.schema.schedule import ConstantSpec, CosineSpec, OneCycleSpec, PolySpec, ScheduleSpec
from segctl.train.optimizer import (
    build_optimizer,
    layer_factors,
    learning_rate,
    reported_rate,
    schedule_factor,
    set_learning_rates,
)


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


def rates(spec: ScheduleSpec, peak: float, steps: int) -> list[float]:
    return [learning_rate(spec, peak, step, steps) for step in range(steps)]


def torch_rates(peak: float, steps: int, scheduler: str, **options: object) -> list[float]:
    """The rates of torch's scheduler, which is another program for the same curve."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=peak)
    stepped = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **options)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        stepped.step()
    return found


def test_cosine_by_hand_and_as_torch_has_it() -> None:
    assert rates(CosineSpec(floor_lr=0.2), 1.0, 4) == pytest.approx(
        [1, 0.2 + 0.8 * (1 + 0.5**0.5) / 2, 0.6, 0.2 + 0.8 * (1 - 0.5**0.5) / 2]
    )
    theirs = torch_rates(0.1, 50, "CosineAnnealingLR", T_max=50, eta_min=0.01)
    assert rates(CosineSpec(floor_lr=0.01), 0.1, 50) == pytest.approx(theirs)


def test_one_cycle_by_hand_and_as_torch_has_it() -> None:
    assert rates(OneCycleSpec(warmup_fraction=0.5, warmup_factor=0), 1.0, 4) == pytest.approx([0, 0.5, 1, 0.5])
    # torch's cycle reaches its end at the last step, ours one step later; and its peak lies one step before 0.3 of the steps.
    theirs = torch_rates(
        0.1,
        41,
        "OneCycleLR",
        max_lr=0.1,
        total_steps=41,
        pct_start=13 / 41,
        div_factor=25,
        final_div_factor=1e12,
        cycle_momentum=False,
    )
    assert rates(OneCycleSpec(), 0.1, 40) == pytest.approx(theirs[:40], rel=1e-6)


def test_a_constant_rate_warms_up_and_stays() -> None:
    assert rates(ConstantSpec(warmup_fraction=0.4), 0.5, 5) == pytest.approx([0.5 / 60, 0.25, 0.5, 0.5, 0.5])


def test_every_schedule_can_warm_up() -> None:
    for spec in (PolySpec, CosineSpec, ConstantSpec):
        assert rates(spec(warmup_fraction=0.1), 1.0, 100)[:11] == pytest.approx([1 / 60, *[step / 10 for step in range(1, 11)]])


def test_a_schedule_without_a_kind_is_poly_as_before() -> None:
    assert toy_run(schedule={"power": 0.5}).schedule == PolySpec(power=0.5)
    with pytest.raises(InputError, match=r"schedule\.powr: unknown key, did you mean 'power'\?"):
        toy_run(schedule={"powr": 0.5})


def test_an_unknown_schedule_is_refused_with_the_known_ones() -> None:
    with pytest.raises(
        InputError, match=r"schedule\.kind: got 'cosin', wanted one of poly, cosine, constant, one_cycle, did you mean"
    ):
        toy_run(schedule={"kind": "cosin"})


class Blocks(nn.Module):
    """A backbone of two blocks, as timm names them."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(2, 2, bias=False)
        self.blocks = nn.ModuleList([nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)])
        self.norm = nn.LayerNorm(2, bias=False)


def test_layers_decay_by_hand() -> None:
    backbone = Blocks()
    assert list(layer_factors(backbone, 0.5).values()) == [0.125, 0.25, 0.5, 1.0]
    model = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(2, 2, bias=False)})
    optimizer = build_optimizer(AdamWSpec(lr=0.8, head_lr_factor=10, layer_decay=0.5), model, backbone)
    assert [group["peak_lr"] for group in optimizer.param_groups] == pytest.approx([0.1, 0.2, 0.4, 0.8, 8.0])
    set_learning_rates(optimizer, CosineSpec(floor_lr=0.4), 1, 2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.075, 0.15, 0.3, 0.6, 4.2])
    assert reported_rate(optimizer) == pytest.approx(0.6)


def test_layers_of_a_network_without_blocks_cannot_decay() -> None:
    model = network()
    with pytest.raises(InputError, match=r"optim\.layer_decay: got 0\.7, but the backbone has no numbered blocks"):
        build_optimizer(SGDSpec(lr=0.1, layer_decay=0.7), model, model["backbone"])


def step(model: nn.ModuleDict, optimizer: torch.optim.Optimizer, number: int) -> None:
    set_learning_rates(optimizer, PolySpec(), number, 6)
    images = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    model["head"](model["backbone"](images)).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(
    "spec",
    [AdamSpec(lr=1e-3), *(TimmSpec(name=name, lr=1e-3) for name in ("lamb", "lion", "nadamw", "adopt", "muon")),
     TimmSpec(name="adan", lr=1e-3, betas=(0.9, 0.8, 0.7), eps=1e-6), TimmSpec(name="rmsproptf", lr=1e-3, momentum=0.5)],
    ids=lambda spec: getattr(spec, "name", spec.kind),
)  # fmt: skip
def test_an_optimiser_resumes_to_the_bit(spec: OptimSpec) -> None:
    torch.manual_seed(0)
    model = network()
    other = copy.deepcopy(model)
    optimizer = build_optimizer(spec, model, model["backbone"])
    for number in range(3):
        step(model, optimizer, number)
    other.load_state_dict(copy.deepcopy(model.state_dict()))
    resumed = build_optimizer(spec, other, other["backbone"])
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    before = copy.deepcopy(model.state_dict())
    for number in range(3, 6):
        step(model, optimizer, number)
        step(other, resumed, number)
    assert all(torch.equal(weight, other.state_dict()[name]) for name, weight in model.state_dict().items())
    assert not torch.equal(before["head.weight"], model.state_dict()["head.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "lmb"}, "optim.name: timm has no optimiser 'lmb', did you mean 'lamb'?"),
        ({"name": "adahessian"}, "optim.name: 'adahessian' needs second derivatives"),
        ({"name": "lion", "eps": 1e-6}, "optim.eps: got 1e-06, but timm's 'lion' has no eps"),
        ({"name": "lamb", "momentum": 0.5}, "optim.momentum: got 0.5, but timm's 'lamb' has no momentum"),
        ({"name": "adan", "betas": (0.9, 0.9)}, "optim.betas: got 2 numbers, wanted 3 for timm's 'adan'"),
    ],
)
def test_what_timm_does_not_have_is_one_sentence(options: dict[str, object], message: str) -> None:
    model = network()
    with pytest.raises(InputError) as error:
        build_optimizer(TimmSpec.model_validate({"lr": 0.1, **options}), model, model["backbone"])
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("spec", [SGDSpec(lr=0.1, weight_decay=1e-2), AdamWSpec(lr=1e-2, weight_decay=0.1), AdamSpec(lr=1e-2)])
def test_one_kernel_for_all_weights_takes_the_same_steps(spec: SGDSpec | AdamWSpec | AdamSpec) -> None:
    """The form that a GPU takes; its last digits may differ."""
    found = []
    for fused in (False, True):
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Conv2d(4, 2, 1))
        optimizer = build_optimizer(spec, network, network[0], fused=fused)
        for _ in range(4):
            optimizer.zero_grad()
            network(torch.randn(2, 3, 8, 8)).square().mean().backward()
            optimizer.step()
        found.append([weight.detach() for weight in network.parameters()])
    assert all(torch.allclose(one, other, atol=1e-6) for one, other in zip(*found, strict=True))
