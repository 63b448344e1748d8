"""A frozen network whose weights are spread over the processes of a run, for one that does not fit on each GPU.

torch's `fully_shard` gathers the weights of a part of the network when the part runs, and drops them afterwards. All processes
must run the network equally often.
"""

from collections.abc import Callable, Iterator

import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from segctl.runtime.world import World

LARGEST_PART = 1 / 8
"""Fraction of a network's weights that a part may have, if it has parts of its own that run."""


def parts_that_run(network: nn.Module, run: Callable[[], object]) -> set[nn.Module]:
    """The modules of a network that are called when `run()` runs it. Others, such as lists, only hold some that are."""
    found: set[nn.Module] = set()
    hooks = [part.register_forward_pre_hook(lambda module, _: found.add(module)) for part in network.modules()]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found


def shard_frozen(network: nn.Module, called: set[nn.Module], device: torch.device, world: World) -> None:
    """Spread the weights of a frozen network on the CPU over all processes, in place, and move it to their devices.

    called: what `parts_that_run` found. Weights outside of these parts are gathered for the whole pass.
    """
    network.requires_grad_(False).to(memory_format=torch.contiguous_format)
    mesh = init_device_mesh(device.type, (world.size,))
    most = int(LARGEST_PART * sum(weight.numel() for weight in network.parameters()))
    for part in [*_parts(network, called, most), network]:
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def _parts(module: nn.Module, called: set[nn.Module], most: int) -> Iterator[nn.Module]:
    """The largest parts that are called and have at most this many weights, or no called part of their own."""
    for child in module.children():
        weights = sum(weight.numel() for weight in child.parameters())
        if not weights:
            continue
        inner = any(part in called for part in child.modules() if part is not child)
        if child in called and (weights <= most or not inner):
            yield child
        else:
            yield from _parts(child, called, most)
