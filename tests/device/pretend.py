"""A pretend CUDA device: tensors that say `cuda:0`, compute on the CPU, and refuse to mix with tensors of the CPU.

Every tensor of the device is a `PretendTensor`, which holds a tensor of the CPU. A dispatch mode sees every operation of the
process; it looks at the devices, notes what a real GPU would make the host wait for, computes on the CPU, and wraps the result.
It finds mixed devices, waits, and streams that read what another stream may not have made yet. It says nothing of speed, memory,
rounding or NCCL.

`install` changes the whole process and for good, and must come before its first backward pass; `there.py` starts processes.
"""

import ctypes
import sys
import types
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._foreach_utils import _foreach_supported_types
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

from segctl.runtime import synced_norm

aten = torch.ops.aten
CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")


@dataclass
class Log:
    """What the host would have waited for, and how often each operation ran on the device."""

    waits: list[tuple[str, str]] = field(default_factory=list)
    """(what, where in segctl)."""
    launches: Counter[str] = field(default_factory=Counter)
    orders: list[str] = field(default_factory=list)
    """What streams were told to do, such as `side 1 waits for main`, and `launches` where the stream of launches changes."""

    def order(self, what: str) -> None:
        if not (self.orders and what == self.orders[-1]):
            self.orders.append(what)

    def wait(self, what: str) -> None:
        self.waits.append((what, _place()))

    def clear(self) -> None:
        self.waits.clear()
        self.launches.clear()
        self.orders.clear()


LOG = Log()


class Stream:
    """A queue of the device. It knows how far each other queue had come when this one last waited for it."""

    made = 0

    def __init__(self, device: Any = None, name: str = "") -> None:
        Stream.made += 1
        self.name = name or f"side {Stream.made - 1}"
        self.time = 0
        self.seen: dict[Stream, int] = {}

    def wait_stream(self, other: "Stream") -> None:
        LOG.order(f"{self.name} waits for {other.name}")
        self.seen |= {stream: max(time, self.seen.get(stream, 0)) for stream, time in other.seen.items()} | {other: other.time}

    def knows(self, other: "Stream", time: int) -> bool:
        """Whether what another stream did by then is done when this one does what it is given next."""
        return other is self or self.seen.get(other, -1) >= time


CURRENT = [Stream(name="main")]
"""The streams that the process has entered; the last one gets what it launches."""


@contextmanager
def stream(entered: Stream) -> Iterator[None]:
    CURRENT.append(entered)
    try:
        yield
    finally:
        CURRENT.pop()


def _place() -> str:
    """The line of segctl that asked for the current operation; outside of it, the innermost line of anything but torch."""
    frame: types.FrameType | None = sys._getframe(2)
    other = "?"
    while frame is not None:
        file = frame.f_code.co_filename
        if "/segctl/segctl/" in file or (f"{Path('/segctl/')}" in file and "/tests/" not in file):
            return f"{file.rsplit('/segctl/', 1)[1]}:{frame.f_lineno}"
        if other == "?" and file != __file__ and "/torch/" not in file:
            other = f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return other


class PretendTensor(Tensor):
    """A tensor of the pretend device; `held` holds its values. `pinned`: made from page-locked memory (of tensors on the CPU)."""

    held: Tensor
    written: tuple[Stream, int]
    """By which stream it was written last, and when."""

    @staticmethod
    def __new__(cls, real: Tensor) -> "PretendTensor":
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, real.shape, strides=real.stride(), storage_offset=real.storage_offset(), dtype=real.dtype, layout=real.layout,
            device=CUDA,
        )  # fmt: skip

    def __init__(self, real: Tensor) -> None:
        assert not isinstance(real, PretendTensor)
        self.held = real
        self.written = (CURRENT[-1], CURRENT[-1].time)

    def record_stream(self, stream: Any) -> None:
        LOG.order(f"kept for {stream.name}")

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"PretendTensor({self.held!r})"

    def tolist(self) -> Any:
        LOG.wait("tolist")
        return self.held.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first.")

    def __reduce_ex__(self, protocol: Any) -> Any:
        LOG.wait("saving")
        return self.held.detach().__reduce_ex__(protocol)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if id(self) not in memo:
            copied: Tensor = PretendTensor(self.held.detach().clone())
            if isinstance(self, torch.nn.Parameter) or getattr(self, "_is_param", False):
                copied = torch.nn.Parameter(copied, self.requires_grad)
            else:
                copied.requires_grad_(self.requires_grad)
            memo[id(self)] = copied
        return memo[id(self)]


PINNED: dict[int, Any] = {}
"""Page-locked storages by their address. They are kept, so that no other tensor gets the address of one that is pinned."""


def pinned(tensor: Tensor) -> bool:
    return tensor.untyped_storage().data_ptr() in PINNED


def _pin(tensor: Tensor, device: Any = None) -> Tensor:
    if pinned(tensor):
        return tensor
    copied = tensor.detach().clone()
    PINNED[copied.untyped_storage().data_ptr()] = copied.untyped_storage()
    return copied


WAITS = {
    aten._local_scalar_dense.default: "item",
    aten.nonzero.default: "nonzero",
    aten.masked_select.default: "masked_select",
    aten._unique2.default: "unique",
    aten.unique_consecutive.default: "unique",
    aten.unique_dim.default: "unique",
    aten.bincount.default: "bincount",
    aten.repeat_interleave.Tensor: "repeat_interleave",
    aten.equal.default: "equal",
    aten.is_nonzero.default: "bool",
}
"""Operations whose result, or the shape of it, the host must know."""

INDEXING = {aten.index.Tensor, aten.index_put_.default, aten.index_put.default, aten._index_put_impl_.default}
COPIES = {aten.copy_.default, aten._to_copy.default}
MAY_MIX = {*COPIES, aten._has_compatible_shallow_copy_type.default, aten.set_.source_Tensor}

NO_KERNEL = {
    "detach",
    "alias",
    "lift_fresh",
    "empty",
    "empty_like",
    "new_empty",
    "empty_strided",
    "new_empty_strided",
    "is_same_size",
}


def _cudnn_batch_norm(x, weight, bias, mean, var, training, momentum, eps):  # type: ignore[no-untyped-def]
    return (*torch.native_batch_norm(x, weight, bias, mean, var, training, momentum, eps), torch.empty(0, dtype=torch.uint8))


def _cudnn_batch_norm_backward(x, slope, weight, mean, var, saved_mean, saved_var, eps, _):  # type: ignore[no-untyped-def]
    return aten.native_batch_norm_backward(
        slope.to(x.dtype), x, weight, mean, var, saved_mean, saved_var, True, eps, [True, True, True]
    )


INSTEAD = {
    aten.cudnn_batch_norm.default: _cudnn_batch_norm,
    aten.cudnn_batch_norm_backward.default: _cudnn_batch_norm_backward,
    aten.batch_norm_stats.default: synced_norm.stats,
    aten.batch_norm_gather_stats_with_counts.default: synced_norm.gather_stats,
    aten.batch_norm_elemt.default: synced_norm.elemt,
    aten.batch_norm_backward_reduce.default: synced_norm.backward_reduce,
    aten.batch_norm_backward_elemt.default: synced_norm.backward_elemt,
}
"""What a GPU has and a CPU lacks, in terms of what it has."""


class Mode(TorchDispatchMode):
    """Sees the operations on tensors of the CPU too: those that make a tensor of the device, and copies to it."""

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    if torch.is_inference_mode_enabled():  # no subclass can be made in it
        with torch.inference_mode(False), torch.no_grad():
            return _run(func, args, kwargs)
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    ours = [each for each in tensors if isinstance(each, PretendTensor)]
    theirs = [each for each in tensors if not isinstance(each, PretendTensor)]
    asked = kwargs.get("device")
    target = None if asked is None else torch.device(asked).type
    if target == "cuda":
        kwargs = {**kwargs, "device": CPU}
    _refuse_mixing(func, args, ours, theirs)
    for each in ours:
        if not CURRENT[-1].knows(*each.written):
            raise RuntimeError(f"{CURRENT[-1].name} reads what {each.written[0].name} has not made yet ({func})")
    _note_waits(func, args, kwargs, ours, target)
    plain_args, plain_kwargs = tree_map(_real, args), tree_map(_real, kwargs)
    out = INSTEAD.get(func, func)(*plain_args, **plain_kwargs)
    on_device = bool(ours) if target is None else target == "cuda"
    if func is aten.copy_.default:
        on_device = isinstance(args[0], PretendTensor)
    name = func._schema.name.partition("::")[2]
    if (ours or on_device) and not func.is_view and name not in NO_KERNEL:
        LOG.launches[name] += 1
        CURRENT[-1].time += 1
        LOG.order(f"{CURRENT[-1].name} launches")
        for each in tree_leaves(args[:1]) if func._schema.is_mutable else []:
            if isinstance(each, PretendTensor):
                each.written = (CURRENT[-1], CURRENT[-1].time)
    if not on_device:
        return out
    wrapped = tree_map(lambda each: PretendTensor(each) if isinstance(each, Tensor) else each, out)
    return return_and_correct_aliasing(func, args, kwargs, wrapped) if ours and func not in INSTEAD else wrapped


def _real(value: Any) -> Any:
    return value.held if isinstance(value, PretendTensor) else value


def _refuse_mixing(func: Any, args: Any, ours: list[PretendTensor], theirs: list[Tensor]) -> None:
    """As CUDA does: a CPU's tensor may come along if it is a single number, or an index."""
    if not ours or func in MAY_MIX:
        return
    strangers = [each for each in theirs if each.dim() > 0]
    if func in INDEXING and isinstance(args[0], PretendTensor):
        strangers = [each for each in strangers if not any(each is index for index in args[1])]
    if strangers:
        shapes = [tuple(each.shape) for each in strangers]
        raise RuntimeError(
            f"Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! ({func}, {shapes})"
        )


def _note_waits(func: Any, args: Any, kwargs: Any, ours: list[PretendTensor], target: str | None) -> None:
    if ours and func in WAITS:
        LOG.wait(WAITS[func])
    if ours and func in INDEXING:
        indices = [each for each in args[1] if each is not None]
        if any(each.dtype in (torch.bool, torch.uint8) for each in indices):
            LOG.wait("boolean index")
        if not all(isinstance(each, PretendTensor) for each in indices):
            LOG.wait("index on the CPU")
    if func is aten._to_copy.default:
        if ours and target == "cpu":
            LOG.wait("copy to the CPU")
        if not ours and target == "cuda":
            _note_upload(args[0], bool(kwargs.get("non_blocking")))
    if func is aten.copy_.default and isinstance(args[0], PretendTensor) != isinstance(args[1], PretendTensor):
        if ours[0] is args[0]:
            _note_upload(args[1], len(args) > 2 and bool(args[2]))
        else:
            LOG.wait("copy to the CPU")


def _note_upload(source: Tensor, non_blocking: bool) -> None:
    if not pinned(source):
        LOG.wait(f"copy to the device from memory that is not page-locked {tuple(source.shape)}")
    elif not non_blocking:
        LOG.wait(f"copy to the device that blocks {tuple(source.shape)}")


class Event:
    """A moment that has passed already."""

    def __init__(self, **_: Any) -> None: ...

    def record(self, stream: Any = None) -> None: ...

    def query(self) -> bool:
        return True

    def elapsed_time(self, other: "Event") -> float:
        return 1.0

    def synchronize(self) -> None:
        LOG.wait("Event.synchronize")


def install(guard: Path, capability: tuple[int, int] = (9, 0)) -> None:
    """Give this process the device, for good. guard: the library built from guard.cpp. capability: what the device says it is."""
    if ctypes.CDLL(str(guard)).pretend() != 0:
        raise OSError("the system does not let CUDA's hooks be replaced")
    properties = types.SimpleNamespace(
        total_memory=80 * 2**30, name="Pretend GPU", major=capability[0], minor=capability[1], uuid="GPU-pretend",
        multi_processor_count=132,
    )  # fmt: skip
    state = torch.zeros(16, dtype=torch.uint8)
    answers: dict[str, Any] = {
        "is_available": lambda: True, "is_initialized": lambda: True, "device_count": lambda: 1, "current_device": lambda: 0,
        "_lazy_init": lambda: None, "init": lambda: None, "set_device": lambda device: None, "Event": Event,
        "get_device_capability": lambda device=None: capability, "get_device_name": lambda device=None: "Pretend GPU",
        "get_arch_list": lambda: [f"sm_{capability[0]}{capability[1]}"], "is_bf16_supported": lambda **_: capability >= (8, 0),
        "get_device_properties": lambda device=None: properties, "mem_get_info": lambda device=None: (2**36, 80 * 2**30),
        "max_memory_allocated": lambda device=None: 0, "memory_allocated": lambda device=None: 0,
        "memory_reserved": lambda device=None: 0, "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None, "Stream": Stream, "stream": stream,
        "current_stream": lambda device=None: CURRENT[-1],
        "synchronize": lambda device=None: LOG.wait("synchronize"),
        # Random numbers of the device come from the CPU's generator.
        "get_rng_state": lambda device=None: state, "set_rng_state": lambda new, device=None: None,
        "get_rng_state_all": lambda: [state], "manual_seed_all": lambda seed: None, "manual_seed": lambda seed: None,
    }  # fmt: skip
    for name, answer in answers.items():
        setattr(torch.cuda, name, answer)
    torch.accelerator.is_available = lambda: True  # type: ignore[assignment]
    torch.accelerator.current_accelerator = lambda check_available=False: torch.device("cuda")
    torch.accelerator.set_device_index = lambda device: None
    torch.accelerator.current_device_index = lambda: 0
    Tensor.pin_memory = _pin  # type: ignore[method-assign]
    Tensor.is_pinned = lambda tensor, device=None: pinned(tensor)  # type: ignore[method-assign]
    _foreach_supported_types.append(PretendTensor)
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # the new tensor's type differs, so .data cannot be set
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(1, device="cuda"): made on the CPU, then copied where it is seen
    Mode().__enter__()
