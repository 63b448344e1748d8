"""NCCL's rules on machines without it: what goes to a GPU's group must lie on the GPU, and no Python object may.

gloo takes anything, so it hides a tensor of the CPU that a run would hand to NCCL. Here, two threads of one process are two ranks
with the pretend device; a collective of the group for CUDA refuses what NCCL refuses, and then does the work in Python.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from tests.device.pretend import Mode


class FakeGroups:
    """The groups `cpu:gloo,cuda:nccl` of several ranks, which are threads of this process. `used`: the collectives of each."""

    def __init__(self, size: int) -> None:
        self.size, self.meeting = size, threading.Barrier(size)
        self.here = threading.local()
        self.left: list[Any] = [None] * size
        self.used: set[tuple[str, str]] = set()

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """What `work(rank)` gives on every rank. Raises what the first rank raised."""
        found: list[Any] = [None] * self.size
        failed: list[BaseException] = []

        def take_part(rank: int) -> None:
            self.here.rank = rank
            try:
                with Mode():  # a thread does not inherit it
                    found[rank] = work(rank)
            except BaseException as error:
                failed.append(error)
                self.meeting.abort()

        threads = [threading.Thread(target=take_part, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failed:
            raise next((error for error in failed if not isinstance(error, threading.BrokenBarrierError)), failed[0])
        return found

    def swap(self, value: Any) -> list[Any]:
        """The values of all ranks, on every rank."""
        self.left[self.here.rank] = value
        self.meeting.wait()
        found = list(self.left)
        self.meeting.wait()
        return found

    def _route(self, name: str, *tensors: Tensor) -> None:
        """Choose the group by the tensors' device, as torch does, and refuse what that group refuses."""
        kinds = {tensor.device.type for tensor in tensors}
        if kinds == {"cpu", "cuda"}:
            raise RuntimeError(f"{name}: No backend type associated with tensors of several devices")
        group = "nccl" if kinds == {"cuda"} else "gloo"
        if group == "nccl" and not all(tensor.is_contiguous() for tensor in tensors):
            raise ValueError("Tensors must be contiguous")
        self.used.add((group, name))

    def install(self) -> None:
        """Replace torch.distributed's collectives in this process, for good."""

        def all_reduce(tensor: Tensor, op: Any = dist.ReduceOp.SUM) -> None:
            self._route("all_reduce", tensor)
            values = torch.stack(self.swap(tensor.detach().clone()))
            tensor.copy_(values.sum(0) if op == dist.ReduceOp.SUM else values.amax(0))

        def all_gather(found: list[Tensor], tensor: Tensor) -> None:
            self._route("all_gather", tensor, *found)
            for place, value in zip(found, self.swap(tensor.detach().clone()), strict=True):
                if place.shape != value.shape:
                    raise RuntimeError("all_gather: tensors of several shapes")
                place.copy_(value)

        def all_gather_into_tensor(found: Tensor, tensor: Tensor) -> None:
            self._route("all_gather_into_tensor", tensor, found)
            found.copy_(torch.cat(self.swap(tensor.detach().clone())))

        def broadcast(tensor: Tensor, source: int) -> None:
            self._route("broadcast", tensor)
            tensor.copy_(self.swap(tensor.detach().clone())[source])

        def all_gather_object(found: list[Any], value: Any) -> None:
            self._objects("all_gather_object", value)
            found[:] = self.swap(value)

        def broadcast_object_list(values: list[Any], source: int = 0) -> None:
            self._objects("broadcast_object_list", values)
            values[:] = self.swap(list(values))[source]

        for work in (all_reduce, all_gather, all_gather_into_tensor, broadcast, all_gather_object, broadcast_object_list):
            setattr(dist, work.__name__, work)
        answers = {
            "is_initialized": lambda: True,
            "get_world_size": lambda: self.size,
            "get_rank": lambda: self.here.rank,
            "barrier": lambda: self.swap(None),
        }
        for name, answer in answers.items():
            setattr(dist, name, answer)

    def _objects(self, name: str, value: Any) -> None:
        """Objects go to the CPU's group; pickling a tensor of a GPU for it would wait, and bring it to another process's GPU."""
        leaves = torch.utils._pytree.tree_leaves(value)
        if any(isinstance(leaf, Tensor) and leaf.device.type == "cuda" for leaf in leaves):
            raise RuntimeError(f"{name}: an object with a tensor of a GPU")
        self.used.add(("gloo", name))
