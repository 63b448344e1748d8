"""Optimisers and the learning rate, built from their specs."""

from collections.abc import Iterable, Sequence
from typing import assert_never

import torch
from torch import nn

from segctl.distillers.base import Opponent
from segctl.schema.optim import AdamWSpec, OptimSpec, SGDSpec
from segctl.schema.schedule import PolySpec


def build_optimizer(
    spec: OptimSpec, task: nn.Module, backbone: nn.Module, apart: Iterable[nn.Parameter] = (), *, fused: bool = False
) -> torch.optim.Optimizer:
    """One parameter group for each of backbone and rest, with and without weight decay; `peak_lr` is a group's peak rate.

    A distiller's adapters and projectors belong to the rest: they learn at the head's rate.
    apart: parameters that another optimiser trains.  fused: whether one kernel updates all weights; else torch chooses.
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
        case _:
            assert_never(spec)


def build_opponents(opponents: Sequence[Opponent], *, fused: bool = False) -> torch.optim.Optimizer | None:
    """One Adam for all opponents, a group for each, at constant rates; None without opponents.

    fused: as for `build_optimizer`.
    """
    groups = [{"params": list(each.network.parameters()), "lr": each.lr, "betas": each.betas} for each in opponents]
    return torch.optim.Adam(groups, fused=fused or None) if groups else None


def _parameter_groups(spec: OptimSpec, task: nn.Module, backbone: nn.Module, apart: set[int]) -> list[dict[str, object]]:
    in_backbone = {id(parameter) for parameter in backbone.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in task.parameters():
        if parameter.requires_grad and id(parameter) not in apart:
            decays = spec.decay_norm_and_bias or parameter.ndim > 1
            groups.setdefault((id(parameter) in in_backbone, decays), []).append(parameter)
    return [
        {
            "params": parameters,
            "peak_lr": spec.lr if of_backbone else spec.lr * spec.head_lr_factor,
            "weight_decay": spec.weight_decay if decays else 0.0,
        }
        for (of_backbone, decays), parameters in groups.items()
    ]


def schedule_factor(spec: PolySpec, step: int, steps: int) -> float:
    """The factor of the peak rate at a step counted from 0: linear warm-up first, then polynomial decay."""
    warmup_steps = round(spec.warmup_fraction * steps)
    if step < warmup_steps:
        return max(spec.warmup_factor, step / warmup_steps)
    return float((1 - (step - warmup_steps) / (steps - warmup_steps)) ** spec.power)


def learning_rate(spec: PolySpec, peak: float, step: int, steps: int) -> float:
    """The rate at a step counted from 0: peak · factor during warm-up, floor + (peak - floor) · factor during decay."""
    factor = schedule_factor(spec, step, steps)
    warming = step < round(spec.warmup_fraction * steps)
    return peak * factor if warming else spec.floor_lr + (peak - spec.floor_lr) * factor


def set_learning_rates(optimizer: torch.optim.Optimizer, spec: PolySpec, step: int, steps: int) -> None:
    """Set every group's rate for the next step, counted from 0."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate(spec, group["peak_lr"], step, steps)
