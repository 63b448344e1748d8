"""Optimisers and the learning rate, built from their specs."""

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, assert_never

import torch
from torch import nn

from segctl.distillers.base import Opponent
from segctl.errors import InputError, did_you_mean, first_line
from segctl.schema.optim import AdamSpec, AdamWSpec, OptimSpec, SGDSpec, TimmSpec
from segctl.schema.schedule import ConstantSpec, CosineSpec, OneCycleSpec, PolySpec, ScheduleSpec

BLOCK_NAME = re.compile(r"(?:.*?[._])??blocks\.\d+(?=\.)")
"""The name of a transformer's block, at the beginning of a parameter's name: `blocks.3` or `layers_1.blocks.0`."""


def build_optimizer(
    spec: OptimSpec, task: nn.Module, backbone: nn.Module, apart: Iterable[nn.Parameter] = (), *, fused: bool = False
) -> torch.optim.Optimizer:
    """One parameter group for each of backbone and rest, with and without weight decay; `peak_lr` is a group's peak rate.

    With `layer_decay` each block of the backbone has groups of its own; a group's `layer_factor` is its part of the rate.
    A distiller's adapters and projectors belong to the rest: they learn at the head's rate.
    apart: parameters that another optimiser trains.  fused: whether one kernel updates all weights; else torch chooses.
    Raises InputError for an optimiser or a backbone that does not do what the spec wants.
    """
    groups = _parameter_groups(spec, task, backbone, {id(parameter) for parameter in apart})
    match spec:
        case SGDSpec():
            sgd = torch.optim.SGD(groups, lr=spec.lr, momentum=spec.momentum, fused=fused or None)
            if fused and spec.momentum:
                # torch's kernel leaves the momentum as it finds it in memory if fp16 skips the very first step.
                for weight in (weight for group in sgd.param_groups for weight in group["params"]):
                    sgd.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
            return sgd
        case AdamWSpec():
            return torch.optim.AdamW(groups, lr=spec.lr, betas=spec.betas, fused=fused or None)
        case AdamSpec():
            return torch.optim.Adam(groups, lr=spec.lr, betas=spec.betas, fused=fused or None)
        case TimmSpec():
            return _of_timm(spec, groups)
        case _:
            assert_never(spec)


def _of_timm(spec: TimmSpec, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    import timm.optim

    theirs: Any = timm.optim
    known = theirs.list_optimizers()
    if spec.name not in known:
        raise InputError(
            f"optim.name: timm has no optimiser '{spec.name}'{did_you_mean(spec.name, known)}",
            "`timm.optim.list_optimizers()` in Python names them all",
        )
    about = theirs.get_optimizer_info(spec.name)
    if about.second_order:
        raise InputError(
            f"optim.name: '{spec.name}' needs second derivatives, wanted a first-order optimiser", "for example adamw"
        )
    has = {"momentum": about.has_momentum, "betas": about.has_betas, "eps": about.has_eps}
    given = {name: value for name in has if (value := getattr(spec, name)) is not None}
    for name in given:
        if not has[name]:
            raise InputError(f"optim.{name}: got {given[name]}, but timm's '{spec.name}' has no {name}", "leave it out")
    if "betas" in given and len(given["betas"]) != (about.num_betas or 2):
        got = len(given["betas"])
        raise InputError(f"optim.betas: got {got} numbers, wanted {about.num_betas or 2} for timm's '{spec.name}'")
    try:
        made: torch.optim.Optimizer = theirs.create_optimizer_v2(groups, opt=spec.name, lr=spec.lr, **given)
        return made
    except Exception as error:  # those of other packages (bnb…, fused…) each fail in their own way where the package is missing
        reason = first_line(error) or type(error).__name__
        raise InputError(f"optim.name: cannot make timm's '{spec.name}': {reason}", "take another one, such as adamw") from error


def build_opponents(opponents: Sequence[Opponent], *, fused: bool = False) -> torch.optim.Optimizer | None:
    """One Adam for all opponents, a group for each, at constant rates; None without opponents.

    fused: as for `build_optimizer`.
    """
    groups = [{"params": list(each.network.parameters()), "lr": each.lr, "betas": each.betas} for each in opponents]
    return torch.optim.Adam(groups, fused=fused or None) if groups else None


def _parameter_groups(spec: OptimSpec, task: nn.Module, backbone: nn.Module, apart: set[int]) -> list[dict[str, Any]]:
    in_backbone = {id(parameter) for parameter in backbone.parameters()}
    factors = {} if spec.layer_decay is None else layer_factors(backbone, spec.layer_decay)
    groups: dict[tuple[bool, bool, float], list[nn.Parameter]] = {}
    for parameter in task.parameters():
        if parameter.requires_grad and id(parameter) not in apart:
            decays = spec.decay_norm_and_bias or parameter.ndim > 1
            factor = factors.get(id(parameter), 1.0)
            groups.setdefault((id(parameter) in in_backbone, decays, factor), []).append(parameter)
    return [
        {
            "params": parameters,
            "peak_lr": (spec.lr if of_backbone else spec.lr * spec.head_lr_factor) * factor,
            "layer_factor": factor,
            "weight_decay": spec.weight_decay if decays else 0.0,
        }
        for (of_backbone, decays, factor), parameters in groups.items()
    ]


def layer_factors(backbone: nn.Module, decay: float) -> dict[int, float]:
    """The part of the learning rate of each of the backbone's parameters, by its id().

    With n blocks it is decay^(n + 1) for what comes before the first block (patches, positions), decay^(n - i) for block i from
    0 on, and 1 for what comes after the last (BEiT, arXiv:2106.08254).  What lies between two blocks belongs to the later one.
    Raises InputError for a backbone without blocks.
    """
    names = [name for name, _ in backbone.named_parameters()]
    found = [match[0] if (match := BLOCK_NAME.match(name)) else None for name in names]
    blocks = list(dict.fromkeys(block for block in found if block is not None))
    if not blocks:
        raise InputError(
            f"optim.layer_decay: got {decay:g}, but the backbone has no numbered blocks as transformers have",
            "leave it out (null), or take a transformer as model.backbone",
        )
    exponents: list[int] = []
    following = 0  # the exponent of what comes after the last block
    for block in reversed(found):
        following = following if block is None else len(blocks) - blocks.index(block)
        exponents.insert(0, following)
    first = found.index(blocks[0])
    exponents[:first] = [len(blocks) + 1] * first
    parameters = (id(parameter) for parameter in backbone.parameters())
    return dict(zip(parameters, (decay**exponent for exponent in exponents), strict=True))


def schedule_factor(spec: ScheduleSpec, step: int, steps: int) -> float:
    """The factor of the peak rate at a step counted from 0: warm-up first, then the decay from 1 to 0."""
    warmup_steps = round(spec.warmup_fraction * steps)
    if step < warmup_steps and isinstance(spec, OneCycleSpec):
        return spec.warmup_factor + (1 - spec.warmup_factor) * (1 - _half_cosine(step / warmup_steps))
    if step < warmup_steps:
        return max(spec.warmup_factor, step / warmup_steps)
    progress = (step - warmup_steps) / (steps - warmup_steps)
    match spec:
        case PolySpec():
            return float((1 - progress) ** spec.power)
        case CosineSpec() | OneCycleSpec():
            return _half_cosine(progress)
        case ConstantSpec():
            return 1.0
        case _:
            assert_never(spec)


def _half_cosine(progress: float) -> float:
    """From 1 at 0 to 0 at 1."""
    return (1 + math.cos(math.pi * progress)) / 2


def learning_rate(spec: ScheduleSpec, peak: float, step: int, steps: int) -> float:
    """The rate at a step counted from 0: peak · factor during warm-up, floor + (peak - floor) · factor during decay."""
    factor = schedule_factor(spec, step, steps)
    if isinstance(spec, ConstantSpec) or step < round(spec.warmup_fraction * steps):
        return peak * factor
    return spec.floor_lr + (peak - spec.floor_lr) * factor


def set_learning_rates(optimizer: torch.optim.Optimizer, spec: ScheduleSpec, step: int, steps: int) -> None:
    """Set every group's rate for the next step, counted from 0."""
    for group in optimizer.param_groups:
        factor = group.get("layer_factor", 1.0)  # checkpoints of earlier versions have none
        group["lr"] = factor * learning_rate(spec, group["peak_lr"] / factor, step, steps)


def reported_rate(optimizer: torch.optim.Optimizer) -> float:
    """The rate of the first group, which is of the backbone, as it is without `layer_decay`."""
    group = optimizer.param_groups[0]
    return float(group["lr"] / group.get("layer_factor", 1.0))
