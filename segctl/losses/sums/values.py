"""A loss of sums on a GPU in one kernel, which gives its gradient too; by torch's own operations it is about thirty launches.

The arithmetic stands in the losses themselves (`of_sums`). The first loss of each kind is computed both ways, as in
`segctl.losses.sums.on_gpu`, and where the kernel fails or gives another number, torch's own operations are used.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from segctl.losses.across_ranks import max_over_ranks, sum_over_ranks
from segctl.losses.sums import on_gpu
from segctl.losses.sums.on_gpu import KERNEL_TOLERANCE, SumTables, kernel_constants
from segctl.losses.sums.plain import Sums
from segctl.runtime import fast_way
from segctl.runtime.live_bytes import counting_bytes


class MeanOf(NamedTuple):
    """scale · sum w (label_log - log_likelihood) / max(sum w·labelled, floor), over images and classes; w are class weights.

    entropy: whether label_log is subtracted from.
    """

    scale: float
    floor: float
    entropy: bool


class RatioOf(NamedTuple):
    """The settings of a `JDTLoss` of one process; every_class: whether all classes are averaged over, not those present."""

    miou_d: float
    miou_i: float
    miou_c: float
    alpha: float
    beta: float
    gamma: float
    smooth: float
    threshold: float
    log_loss: bool
    every_class: bool


ValueRecipe = MeanOf | RatioOf


def tables_over_ranks(sums: SumTables) -> SumTables:
    """The sums (1, C) over the images of all ranks, without logarithms: few operations, and the messages of torch's way.

    sums: each rank's own, (B, C), with their tables.
    """
    learned, counted = sums.learned, sums.counted
    assert learned is not None
    assert counted is not None
    own: Tensor = _OverBatch.apply(learned, counted)
    whole = sum_over_ranks(own)
    largest = max_over_ranks(counted[1].amax(0, keepdim=True))[None]
    # The third row of what is learned from has no meaning for a ratio, and gets no gradient from it.
    return SumTables.of(whole, torch.cat([whole.detach()[2:], largest, largest]))


class _OverBatch(torch.autograd.Function):
    """Two tables (3, B, C) -> intersection, predicted and labelled over the batch, (3, 1, C)."""

    @staticmethod
    def forward(ctx: Any, learned: Tensor, counted: Tensor) -> Tensor:
        ctx.images = learned.shape[1]
        whole = learned.sum(1, keepdim=True)
        torch.sum(counted[0], 0, keepdim=True, out=whole[2])
        return whole

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0].expand(-1, ctx.images, -1), None  # that of the third row is 0, see above


def by_kernel(sums: Sums, recipe: ValueRecipe, class_weights: Tensor | None, exact: Callable[[Sums], Tensor]) -> Tensor | None:
    """The loss, a scalar, of sums (B, C) by one kernel; None where the sums are not a kernel's or the kernel does not serve.

    class_weights (C,) or None.  exact: the same loss by torch's own operations, for the check and for second derivatives.
    """
    if not isinstance(sums, SumTables) or sums.learned is None or sums.counted is None:
        return None
    weights = None if class_weights is None else class_weights.to(sums.learned)
    call = ValueCall(recipe, exact)
    if not counting_bytes():
        kind = ("losses", sums.learned.device, kernel_constants(sums.learned.shape[2])["BC"], recipe, weights is None)
        learned, counted = sums.learned, sums.counted

        def with_slope(value_of: Callable[[Tensor], Tensor]) -> list[Tensor]:
            with torch.enable_grad(), torch.inference_mode(False), torch.autocast(learned.device.type, enabled=False):
                copy = learned.detach().clone().requires_grad_()
                value = value_of(copy)
                return [value.detach(), torch.autograd.grad(value, copy)[0]]

        right = fast_way.is_right(
            kind,
            lambda: with_slope(lambda copy: _Value.apply(copy, counted, weights, call)),
            lambda: with_slope(lambda copy: exact(Sums(*SumTables.of(copy, counted)))),
            KERNEL_TOLERANCE,
        )
        if not right:
            return None
    value: Tensor = _Value.apply(sums.learned, sums.counted, weights, call)
    return value


@dataclass(frozen=True)
class ValueCall:
    """The arguments of a call besides its tensors."""

    recipe: ValueRecipe
    exact: Callable[[Sums], Tensor]

    def start(self, learned: Tensor, counted: Tensor, weights: Tensor | None, value: Tensor, gradient: Tensor) -> None:
        """Write the value () and its gradient (3, B, C) of two tables (3, B, C)."""
        images, classes = learned.shape[1:]
        block = max(16, 1 << (classes - 1).bit_length())
        tensors = (learned, counted, learned if weights is None else weights, value, gradient, images)
        constants = {"C": classes, "BC": block, "WEIGHTED": weights is not None, "num_warps": 1 if block <= 64 else 4}
        kernels, recipe = on_gpu.triton_kernels(), self.recipe
        with fast_way.device_of(learned):
            if isinstance(recipe, MeanOf):
                kernels.mean_of_sums[1, 1, 1](*tensors, recipe.scale, recipe.floor, ENTROPY=recipe.entropy, **constants)
                return
            *numbers, log_loss, every_class = recipe
            kernels.ratio_of_sums[1, 1, 1](
                *tensors, *numbers, ALL=every_class, LOG=log_loss, POWER=recipe.gamma != 1, OVER_BATCH=recipe.miou_d > 0,
                BY_IMAGE=recipe.miou_i > 0 or recipe.miou_c > 0, **constants,
            )  # fmt: skip


class _Value(torch.autograd.Function):
    """The tables of sums, (3, B, C) each -> the loss, a scalar."""

    @staticmethod
    def forward(ctx: Any, learned: Tensor, counted: Tensor, weights: Tensor | None, call: ValueCall) -> Tensor:
        value, gradient = torch.empty((), device=learned.device), torch.empty_like(learned)
        call.start(learned, counted, weights, value, gradient)
        ctx.save_for_backward(learned, counted, gradient)
        ctx.call = call
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        learned, counted, gradient = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative goes through torch's own operations
            exact = ctx.call.exact(Sums(*SumTables.of(learned, counted)))
            return torch.autograd.grad(exact, learned, grads, create_graph=True)[0], None, None, None
        return gradient * grads[0], None, None, None
