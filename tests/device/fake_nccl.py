"""NCCL's rules on machines without it: what goes to a GPU's group must lie on the GPU, and no Python object may.

gloo takes anything, so it hides a tensor of the CPU that a run would give to NCCL. Here a process has the pretend device and a
real gloo group; each collective is routed by the device of its tensors, as torch does for `cpu:gloo,cuda:nccl`, refuses what the
group for CUDA would refuse, and then lets gloo carry the values.
"""

from pathlib import Path
from typing import Any

import torch.distributed as dist
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from tests.device.pretend import PretendTensor

OF_TENSORS = ("all_reduce", "all_gather", "all_gather_into_tensor", "broadcast")
OF_OBJECTS = ("all_gather_object", "broadcast_object_list")

USED: set[tuple[str, str]] = set()
"""The collectives that this process has taken part in: (group, name)."""


def join(rank: int, size: int, meeting: Path) -> None:
    """Make this process one of several whose group for CUDA is strict."""
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    for name in OF_TENSORS:
        setattr(dist, name, _of_tensors(name, getattr(dist, name)))
    for name in OF_OBJECTS:
        setattr(dist, name, _of_objects(name, getattr(dist, name)))


def _of_tensors(name: str, collective: Any) -> Any:
    def strict(*arguments: Any) -> None:
        tensors = [each for each in tree_leaves(arguments) if isinstance(each, Tensor)]
        kinds = {each.device.type for each in tensors}
        if len(kinds) > 1:
            raise RuntimeError(f"{name}: tensors of several devices")
        group = "nccl" if kinds == {"cuda"} else "gloo"
        if group == "nccl" and not all(each.is_contiguous() for each in tensors):
            raise ValueError("Tensors must be contiguous")
        USED.add((group, name))
        with _disable_current_modes():
            collective(*tree_map(lambda each: each.held if isinstance(each, PretendTensor) else each, arguments))

    return strict


def _of_objects(name: str, collective: Any) -> Any:
    def strict(*arguments: Any) -> None:
        if any(isinstance(each, Tensor) and each.device.type == "cuda" for each in tree_leaves(arguments)):
            # Pickling it would wait for the GPU, and bring it to another process's GPU.
            raise RuntimeError(f"{name}: an object with a tensor of a GPU")
        USED.add(("gloo", name))
        with _disable_current_modes():
            collective(*arguments)

    return strict


def take_part(rank: int, size: int, meeting: Path, work: Any) -> Any:
    """What `work(rank, size)` gives in a process that has joined."""
    join(rank, size, meeting)
    try:
        return work(rank, size)
    finally:
        dist.destroy_process_group()
