"""The divergence of rows of similarities on a GPU, by the Triton kernels of `segctl.distillers.rows.kernels`.

Vectors are rounded to float16 before their products where the settings of torch allow TF32, as segctl does beside bf16 and fp16:
both have 10 bits after the first, and float16 takes half the room and twice the speed. A unit vector's parts are far from the
ends of float16. Sums, exponentials and gradients are float32 always.

The first call of a kind is computed by torch's own operations too, with vectors rounded alike. If the kernels cannot be built on
this device, or give other numbers, a warning says so and torch's own operations are used from then on.
"""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from segctl.distillers.rows.plain import SimilarityRows, plain_divergence
from segctl.distillers.seen import NOWHERE
from segctl.runtime import fast_way
from segctl.runtime.live_bytes import counting_bytes

FEWEST_SIMILARITIES = 1 << 20
"""Fewest similarities for the kernels. Torch's own operations take fewer of them in microseconds."""
PULL = 4096.0
"""A probability times this is far from the smallest float16, and one of 1 is far from the largest."""
TOLERANCES = {True: 1e-4, False: 5e-3}
"""Largest difference from torch's own operations, relative to the largest number: of full float32 products, and of rounded ones.
A product of TF32 alone would differ by some 1e-3."""


def forward_tiles(full: bool) -> dict[str, int]:
    """The sizes of a program of the forward pass, for which no register is spilled; full: float32 products, else float16."""
    sizes = {"ROWS": 64, "KEYS": 32, "BD": 32} if full else {"ROWS": 128, "KEYS": 64, "BD": 64}
    return {**sizes, "num_warps": 8, "num_stages": 2}


def backward_tiles(full: bool, width: int) -> dict[str, int]:
    """The same of the backward pass, for vectors of length `width`; BD divides that of the forward pass."""
    channels = min(1 << (width - 1).bit_length(), 128 if full else 256)
    sizes = {"OWN": 64, "OTHER": 32, "BD": 16} if full else {"OWN": 64, "OTHER": 64, "BD": 64}
    return {**sizes, "OUT": channels, "num_warps": 8, "num_stages": 2}


def checked_divergence(compared: SimilarityRows) -> Tensor | None:
    """The divergence, a scalar, by the kernels; None where torch's own operations are the better or the only way."""
    rows, keys = compared.rows, compared.keys
    suits = rows.is_cuda and rows.dtype == torch.float32 and len(rows) * keys.shape[0] * keys.shape[1] >= FEWEST_SIMILARITIES
    if not suits or counting_bytes() or torch.compiler.is_compiling() or find_spec("triton") is None:
        return None
    if torch.cuda.get_device_capability(rows.device) < (8, 0):
        return None  # Triton uses the tensor cores of Ampere and later, and without them cuBLAS is faster
    full = torch.get_float32_matmul_precision() == "highest"
    return kernel_divergence(compared, full) if _are_right(compared, full) else None


def kernel_divergence(compared: SimilarityRows, full: bool) -> Tensor:
    """The divergence, a scalar; full: products of float32, else of float16."""
    *vectors, temperature, counted, counted_keys = compared
    found: Tensor = _KernelDivergence.apply(*vectors, temperature, (counted, counted_keys), full)
    return found


def _are_right(compared: SimilarityRows, full: bool) -> bool:
    """Whether the kernels give the value and the gradients of torch's own operations; tried once for each kind."""
    learning = (compared.rows.requires_grad, compared.keys.requires_grad)
    widths = (compared.rows.shape[1], compared.teacher_rows.shape[1])
    kind = ("similarities", compared.rows.device, full, widths, learning, compared.counted is None, compared.counted_keys is None)

    def found(divergence_of: Callable[[SimilarityRows], Tensor]) -> list[Tensor]:
        with torch.enable_grad(), torch.inference_mode(False), torch.autocast(compared.rows.device.type, enabled=False):
            rows, keys, *theirs = (x.detach().clone() if full else x.detach().half().float() for x in compared[:4])
            learned = [x.requires_grad_() for x, learns in zip((rows, keys), learning, strict=True) if learns]
            value = divergence_of(SimilarityRows(rows, keys, theirs[0], theirs[1], *compared[4:]))
            # The rounding of a value near 0 is that of its parts, which are near 1.
            slopes = torch.autograd.grad(value, learned) if learned else ()
            return [torch.stack([value.detach(), torch.ones_like(value)]), *slopes]

    return fast_way.is_right(
        kind, lambda: found(lambda each: kernel_divergence(each, full)), lambda: found(plain_divergence), TOLERANCES[full]
    )


class _KernelDivergence(torch.autograd.Function):
    """Keeps log sum exp of every row and group, from which the backward pass computes similarities again."""

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, keys: Tensor, teacher_rows: Tensor, teacher_keys: Tensor, temperature: float,
        counted: tuple[Tensor | None, Tensor | None], full: bool,
    ) -> Tensor:  # fmt: skip
        """Arguments as for `kernel_divergence`; counted: bool (M,) of rows, and (G, n) of keys. Returns a scalar."""
        groups, each = keys.shape[:2]
        tiles = forward_tiles(full)
        tensors = [_whole_chunks(tensor, full, tiles["BD"]) for tensor in (rows, keys, teacher_rows, teacher_keys)]
        masks = [None if mask is None else mask.contiguous().view(torch.uint8) for mask in counted]
        found, *log_sums = torch.empty(3, groups, len(rows), device=rows.device).unbind(0)
        grid = (-(-len(rows) // tiles["ROWS"]), groups)
        with fast_way.device_of(rows):
            _kernels().row_divergences[grid](
                *tensors, *_pointers(masks, rows), found, *log_sums, len(rows), each, tensors[0].shape[1],
                tensors[2].shape[1], 1 / temperature, NOWHERE, **_switches(masks, full), **tiles,
            )  # fmt: skip
        pairs = len(rows) * groups if counted[0] is None else (counted[0].sum() * groups).clamp(min=1)
        ctx.save_for_backward(*tensors, *masks, *log_sums)
        ctx.temperature, ctx.full, ctx.pairs, ctx.width = temperature, full, pairs, rows.shape[1]
        return found.sum() / pairs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """slope: a scalar, the gradient of the result. Returns the gradients to rows (M, D) and keys (G, n, D)."""
        rows, keys, teacher_rows, teacher_keys, *masks, log_sums, teacher_log_sums = ctx.saved_tensors
        groups, each = keys.shape[:2]
        width = rows.shape[1]
        tiles = backward_tiles(ctx.full, width)
        factor = slope.float() / (ctx.pairs * ctx.temperature)

        def gradient_to(own: Tensor, other: Tensor, theirs: tuple[Tensor, Tensor], to_keys: bool) -> Tensor:
            out = torch.empty(own.shape, device=own.device)
            (own_number, own_groups), (other_number, other_groups) = ((each, groups), (len(rows), 1))[:: 1 if to_keys else -1]
            grid = (-(-own_number // tiles["OWN"]), -(-width // tiles["OUT"]), own_groups)
            with fast_way.device_of(own):
                _kernels().row_gradients[grid](
                    own, other, *theirs, *_pointers(masks, own), log_sums, teacher_log_sums, factor, out,
                    own_number, other_number, other_groups, len(rows), width, teacher_rows.shape[1], 1 / ctx.temperature, NOWHERE,
                    PULL=1.0 if ctx.full else PULL, TO_KEYS=to_keys, **_switches(masks, ctx.full), **tiles,
                )  # fmt: skip
            return out[..., : ctx.width]

        to_rows = gradient_to(rows, keys, (teacher_rows, teacher_keys), False) if ctx.needs_input_grad[0] else None
        to_keys = gradient_to(keys, rows, (teacher_keys, teacher_rows), True) if ctx.needs_input_grad[1] else None
        return to_rows, to_keys, None, None, None, None, None


def _whole_chunks(vectors: Tensor, full: bool, chunk: int) -> Tensor:
    """Vectors (..., D), contiguous, in the type of products, with zeros behind them up to a multiple of a chunk."""
    vectors = vectors if full else vectors.half()
    lacking = -vectors.shape[-1] % chunk
    return F.pad(vectors, (0, lacking)) if lacking else vectors.contiguous()


def _pointers(masks: list[Tensor | None], other: Tensor) -> list[Tensor]:
    """A kernel takes some tensor in place of a mask, (M,) or (G, n), that there is not."""
    return [other if mask is None else mask for mask in masks]


def _switches(masks: list[Tensor | None], full: bool) -> dict[str, bool]:
    return {"FULL": full, "MASKED": masks[0] is not None, "MASKED_KEYS": masks[1] is not None}


def _kernels() -> Any:
    from segctl.distillers.rows import kernels

    return kernels
