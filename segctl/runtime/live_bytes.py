"""How much memory a computation needs, found from the shapes of its tensors: without a GPU, and without the memory."""

import weakref
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GRAIN = 512
"""The CUDA allocator rounds every tensor up to a multiple of this many bytes."""


_counting = ContextVar("_counting", default=False)


def counting_bytes() -> bool:
    """Whether a `LiveBytes` is at work, so that tensors have no content and say that they are on the CPU."""
    return _counting.get()


def as_on_gpu(tensor: Tensor) -> bool:
    """Whether a tensor of any shape should be handled as on a GPU: it is on one, or its bytes are counted for one."""
    return tensor.is_cuda or _counting.get()


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """As a context: tensors made inside have no content, and `peak` is the most bytes that they would have held at once.

    Their device is the CPU, whose autograd and autocast work everywhere. A tensor counts from its operation to the death of its
    last reader, saved ones for the backward pass included. What an operation uses inside itself does not count, nor what a
    CUDA context, cuDNN's workspaces and a fragmented allocator need: add about 1 GiB.
    A number that the host asks for is made up: False or 1.
    """

    def __init__(self) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode  # slow to import, and rarely needed

        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __enter__(self) -> "LiveBytes":
        self._token = _counting.set(True)
        self._fake.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._fake.__exit__(*error)
        _counting.reset(self._token)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return False if args[0].dtype == torch.bool else 1
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        address = storage._cdata
        if address in self._known:
            return
        size = -(-storage.nbytes() // GRAIN) * GRAIN

        def gone(_: object) -> None:
            del self._known[address]
            self.live -= size

        self._known[address] = weakref.ref(storage, gone)
        self.live += size
        self.peak = max(self.peak, self.live)
