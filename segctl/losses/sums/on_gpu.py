"""Sums on a GPU: of logits at head stride by Triton kernels (`segctl.losses.sums.kernels`), of others by torch's compiler.

Part of the first batch of each kind is computed a second time by torch's own operations. If the kernels cannot be built on this
device, or give other numbers, a warning says so and torch's own operations are used from then on.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from segctl.losses.pixels import is_hard
from segctl.losses.sums.at_stride import SoftAtStride, upsample_bilinear
from segctl.losses.sums.fast import block_sums
from segctl.losses.sums.plain import Sums, plain_sums
from segctl.runtime import fast_way
from segctl.runtime.live_bytes import counting_bytes

MOST_KERNEL_CLASSES = 256
CELLS_AT_ONCE = 8
"""Cells that a program of the forward pass walks over, so that its sums are written once for all of them."""
KERNEL_TOLERANCE = 1e-3
"""Largest difference from the plain way, relative to the largest number. Faults of a compiler or a device are much larger."""


@lru_cache(maxsize=32)
def _places(length: int, wanted: int, align_corners: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """The place in the small map of each pixel, float32 (wanted,), and each cell's first pixel, int32 (length + 1,).

    As torch's kernels round them: the scale and the product are float32.
    """
    pixel = torch.arange(wanted, dtype=torch.float32)
    one = torch.tensor(1.0)
    if align_corners:
        place = pixel * (one * (length - 1) / max(wanted - 1, 1))
    else:
        place = ((pixel + 0.5) * (one * length / wanted) - 0.5).clamp(min=0)
    place = place.clamp(max=length - 1)
    first = torch.searchsorted(place.floor(), torch.arange(length + 1, dtype=torch.float32)).int()
    return place.to(device), first.to(device)


class SumTables(Sums):
    """Sums (B, C) that are stored in two tables, so that one kernel can make a loss of them, see `segctl.losses.sums.values`.

    learned (3, B, C): intersection, predicted and log_likelihood.  counted (3, B, C): labelled, largest_label and label_log,
    without gradient. What `_replace` makes of it has no tables.
    """

    learned: Tensor | None = None
    counted: Tensor | None = None

    @staticmethod
    def of(learned: Tensor, counted: Tensor) -> "SumTables":
        """The sums that lie in two tables (3, B, C)."""
        intersection, predicted, log_likelihood = learned.unbind(0)
        labelled, largest_label, label_log = counted.unbind(0)
        sums = SumTables(intersection, predicted, labelled, largest_label, log_likelihood, label_log)
        sums.learned, sums.counted = learned, counted
        return sums


@dataclass(frozen=True)
class KernelCall:
    """The arguments of a call besides its tensors."""

    size: tuple[int, int]
    norm: int
    with_log: bool
    hard: bool
    align_corners: bool

    def arguments(self, logits: Tensor, label: Tensor, valid: Tensor | None) -> dict[str, Any]:
        """The arguments that both kernels share; label integer (B, H, W), or a teacher's logits (B, C, h', w')."""
        # Tensors without content must not be kept for others.
        places = _places.__wrapped__ if counting_bytes() else _places
        tall, first_row = places(logits.shape[2], self.size[0], self.align_corners, logits.device)
        wide, first_column = places(logits.shape[3], self.size[1], self.align_corners, logits.device)
        theirs = logits if self.hard else label
        their_tall, _ = places(theirs.shape[2], self.size[0], self.align_corners, logits.device)
        their_wide, _ = places(theirs.shape[3], self.size[1], self.align_corners, logits.device)
        return {
            "logits": logits,
            "label": label.contiguous() if self.hard else logits,
            "valid": logits if valid is None else valid.contiguous().view(torch.uint8),
            "theirs": theirs,
            "tall": tall,
            "wide": wide,
            "first_row": first_row,
            "first_column": first_column,
            "their_tall": their_tall,
            "their_wide": their_wide,
            "strides": tuple(logits.stride()),
            "their_strides": tuple(theirs.stride()),
            "height": logits.shape[2],
            "width": logits.shape[3],
            "their_height": theirs.shape[2],
            "their_width": theirs.shape[3],
            "size_y": self.size[0],
            "size_x": self.size[1],
            **kernel_constants(logits.shape[1]),
            "HARD": self.hard,
            "MASKED": valid is not None,
            "SQUARES": self.norm == 2,
            "WITH_LOG": self.with_log,
        }


def kernel_constants(classes: int) -> dict[str, int]:
    """The sizes of a program for a number of classes: so many pixels and warps that no register is spilled.

    With up to 8 classes and 32 pixels NVIDIA's assembler aims at so few registers that it spills one; with 64 it does not.
    """
    block = max(16, 1 << (classes - 1).bit_length())
    return {
        "C": classes,
        "BC": block,
        "BN": 64 if classes <= 8 else 32 if block <= 32 else 16 if block <= 128 else 8,
        "num_warps": 4 if block <= 64 else 8,
    }


def group_constants(classes: int) -> dict[str, int]:
    """The sizes of a program that adds up rows of C numbers."""
    block = max(16, 1 << (classes - 1).bit_length())
    return {"C": classes, "BC": block, "BR": max(1, 2048 // block), "num_warps": 4}


def kernel_sums(
    logits: Tensor,
    label: Tensor | SoftAtStride,
    size: tuple[int, int],
    valid: Tensor | None,
    norm: int,
    with_log: bool,
    align_corners: bool = False,
) -> Sums:
    """As `segctl.losses.sums.at_stride.stride_sums`, by the kernels; the label integer (B, H, W) or `SoftAtStride`."""
    call = KernelCall(size, norm, with_log, not isinstance(label, SoftAtStride), align_corners)
    tensor = label.logits if isinstance(label, SoftAtStride) else label
    return SumTables.of(*_KernelSums.apply(logits, tensor, valid, call))


class _KernelSums(torch.autograd.Function):
    """Logits (B, C, h, w) -> the two tables of `SumTables`, each (3, B, C)."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, label: Tensor, valid: Tensor | None, call: KernelCall) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(logits)
        ctx.label, ctx.valid, ctx.call = label, valid, call  # autograd would want a copy of what inference mode made
        images, classes, height, width = logits.shape
        groups = -(-width // CELLS_AT_ONCE)
        out = torch.empty(images, height, groups, 6, classes, device=logits.device)
        learned, counted = (torch.empty(3, images, classes, device=logits.device) for _ in range(2))
        arguments = call.arguments(logits, label, valid)
        with fast_way.device_of(logits):
            triton_kernels().sum_cells[groups, height, images](out=out, CELLS=CELLS_AT_ONCE, **arguments)
            triton_kernels().add_groups[images, 6](out, learned, counted, height * groups, images, **group_constants(classes))
        ctx.mark_non_differentiable(counted)
        ctx.set_materialize_grads(False)
        return learned, counted

    @staticmethod
    def backward(ctx: Any, *of_tables: Tensor | None) -> tuple[Tensor | None, ...]:
        if (grads := of_tables[0]) is None:
            return None, None, None, None
        (logits,), label, valid = ctx.saved_tensors, ctx.label, ctx.valid
        call: KernelCall = ctx.call
        if torch.is_grad_enabled():  # a second derivative goes through torch's own operations
            sums = plain_at_size(logits, label, valid, call)
            wanted = torch.stack([sums.intersection, sums.predicted, sums.log_likelihood])
            return torch.autograd.grad(wanted, logits, grads, create_graph=True)[0], None, None, None
        images, classes, height, width = logits.shape
        parts = torch.empty(2, 2, images, height, width, classes, device=logits.device)
        gradient = torch.empty_like(logits)
        arguments = call.arguments(logits, label, valid)
        with fast_way.device_of(logits):
            triton_kernels().cell_gradients[width, height, images](
                grads=grads.contiguous(), out=parts, images=images, **arguments
            )
            block, strides = arguments["BC"], tuple(gradient.stride())
            triton_kernels().add_corners[width, height, images](
                parts, gradient, strides, height, width, images, C=classes, BC=block, num_warps=1
            )
        return gradient, None, None, None


def plain_at_size(logits: Tensor, label: Tensor, valid: Tensor | None, call: KernelCall) -> Sums:
    """The same sums, each (B, C), by torch's own operations; arguments as `KernelCall.arguments` takes them."""
    q = label if call.hard else upsample_bilinear(label, call.size, call.align_corners).softmax(1)
    return plain_sums(upsample_bilinear(logits, call.size, call.align_corners), q, valid, call.norm, call.with_log)


def checked_sums(
    logits: Tensor, label: Tensor | SoftAtStride, size: tuple[int, int], valid: Tensor | None, norm: int, with_log: bool
) -> Sums | None:
    """The sums (B, C) of `kernel_sums`, if the kernels take such arguments and give right numbers on this device; else None.

    The first call with arguments of a kind tries the kernels on two images against the plain way. It warns if they fail.
    """
    soft = isinstance(label, SoftAtStride)
    known = isinstance(label, SoftAtStride) or is_hard(label)
    fits = logits.shape[1] <= MOST_KERNEL_CLASSES and logits.dtype != torch.float64 and find_spec("triton") is not None
    if not (fits and known):
        return None
    if counting_bytes():
        return kernel_sums(logits, label, size, valid, norm, with_log)
    few = SoftAtStride(label.logits[:2]) if isinstance(label, SoftAtStride) else label[:2]
    tensor, mask = few.logits if isinstance(few, SoftAtStride) else few, None if valid is None else valid[:2]
    call = KernelCall(size, norm, with_log, not soft, align_corners=False)
    sizes = tuple(value for name, value in kernel_constants(logits.shape[1]).items() if name != "C")
    right = _are_right(
        ("kernels", logits.device, logits.dtype, sizes, soft, valid is None, norm, with_log),
        logits[:2],
        lambda x: kernel_sums(x, few, size, mask, norm, with_log),
        lambda x: plain_at_size(x, tensor, mask, call),
    )
    return kernel_sums(logits, label, size, valid, norm, with_log) if right else None


def checked_compiled_sums(logits: Tensor, label: Tensor, valid: Tensor | None, norm: int, with_log: bool) -> Sums | None:
    """The sums of `plain_sums`, each (B, C), compiled into a few kernels; None if the compiler fails or gives other numbers.

    Arguments as theirs. The first call with arguments of a kind compiles, which takes a while, and tries the result.
    """
    if logits.dtype == torch.float64 or find_spec("triton") is None:
        return None
    right = _are_right(
        ("compiled", logits.device, logits.dtype, is_hard(label), valid is None, norm, with_log),
        logits,
        lambda x: SumTables.of(*_compiled_tables()(x, label, valid, norm, with_log)),
        lambda x: block_sums(x, label, valid, norm, with_log),
    )
    if not right:
        return None
    sums = SumTables.of(*_compiled_tables()(logits, label, valid, norm, with_log))
    return sums if logits.shape[1] <= MOST_KERNEL_CLASSES else Sums(*sums)


def plain_tables(logits: Tensor, label: Tensor, valid: Tensor | None, norm: int, with_log: bool) -> tuple[Tensor, Tensor]:
    """The sums of `plain_sums`, in the two tables (3, B, C) of `SumTables`, for loss kernels. Arguments as its."""
    sums = plain_sums(logits, label, valid, norm, with_log)
    learned = torch.stack([sums.intersection, sums.predicted, sums.log_likelihood])
    return learned, torch.stack([sums.labelled, sums.largest_label, sums.label_log]).detach()


@lru_cache(maxsize=1)
def _compiled_tables() -> Callable[..., tuple[Tensor, Tensor]]:
    compiled: Callable[..., tuple[Tensor, Tensor]] = torch.compile(plain_tables)
    return compiled


def _are_right(kind: tuple[object, ...], logits: Tensor, fast: Callable[[Tensor], Sums], exact: Callable[[Tensor], Sums]) -> bool:
    """Whether the fast sums of logits (B, C, *D) and their gradient are near the exact ones; tried once for each kind."""
    tolerance = KERNEL_TOLERANCE if logits.dtype == torch.float32 else 10 * KERNEL_TOLERANCE
    return fast_way.is_right(kind, lambda: _with_gradient(fast, logits), lambda: _with_gradient(exact, logits), tolerance)


def _with_gradient(sums_of: Callable[[Tensor], Sums], logits: Tensor) -> list[Tensor]:
    """The sums of logits, in float32, and the gradient of some combination of them. Draws no random numbers."""
    with torch.enable_grad(), torch.inference_mode(False), torch.autocast(logits.device.type, enabled=False):
        copy = logits.detach().clone().requires_grad_()
        sums = sums_of(copy)
        parts = (sums.intersection, sums.predicted, sums.log_likelihood)
        total = torch.stack([part.flatten() @ torch.linspace(-1, 2, part.numel(), device=part.device) for part in parts]).sum()
        (gradient,) = torch.autograd.grad(total, copy)
    return [part.detach().float() for part in (*sums, gradient)]


class _NoKernel:
    """Stands in for a kernel: starting it on a grid does nothing."""

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        return lambda *arguments, **options: None


class _NoKernels:
    sum_cells = add_groups = cell_gradients = add_corners = mean_of_sums = ratio_of_sums = _NoKernel()


def triton_kernels() -> Any:
    if counting_bytes():
        return _NoKernels
    from segctl.losses.sums import kernels

    return kernels
