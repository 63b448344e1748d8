"""Batch norm over the images of all processes, without a wait for the GPU.

torch.nn.SyncBatchNorm leaves out processes with an empty batch by a boolean mask, for which the host waits three times in every
norm and torch.compile stops. No process of a run has an empty batch, so there is no mask here.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class SyncedBatchNorm(nn.BatchNorm2d):
    """As BatchNorm2d over the batches of all processes, one after the other; names and shapes of its weights are the same.

    forward: (B, D, h, w) -> the same; B may differ between processes, but no process may have an empty batch.  In eval mode, and
    for a process alone, it is batch norm.  There is no second derivative.
    Source: arXiv:1803.08904 §3.1, with each process's variance about its own mean, so that nothing cancels.
    """

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "SyncedBatchNorm":
        """The same norm, with the same parameters and buffers."""
        # On the meta device, because the weights that it makes are replaced at once.
        made = cls(norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta")
        for name, weight in norm.named_parameters(recurse=False):
            setattr(made, name, weight)
        for name, buffer in norm.named_buffers(recurse=False):
            setattr(made, name, buffer)
        made.training = norm.training
        return made

    def forward(self, input: Tensor) -> Tensor:
        """(B, D, h, w) -> the same; on all processes at once."""
        alone = not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1)
        if alone or not self.training or self.momentum is None:
            return super().forward(input)
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        found: Tensor = _Normalise.apply(
            input, self.weight, self.bias, self.running_mean, self.running_var, self.momentum, self.eps
        )
        return found


class _Normalise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None,
        running_mean: Tensor | None, running_var: Tensor | None, momentum: float, eps: float,
    ) -> Tensor:  # fmt: skip
        """x (B, D, h, w), the other tensors (D,) -> (B, D, h, w). Moves the running statistics."""
        x, on_gpu = _dense(x), x.is_cuda
        mean, invstd = torch.batch_norm_stats(x, eps) if on_gpu else stats(x, eps)
        mine = torch.cat([mean, invstd, mean.new_full((1,), x.numel() // x.shape[1])])
        of_all = mine.new_empty(dist.get_world_size() * len(mine))
        dist.all_gather_into_tensor(of_all, mine)
        means, invstds, counts = torch.split(of_all.view(-1, len(mine)), [len(mean), len(mean), 1], dim=1)
        counts = counts.flatten()
        gather = torch.batch_norm_gather_stats_with_counts if on_gpu else gather_stats
        mean, invstd = gather(x, means, invstds, running_mean, running_var, momentum, eps, counts)
        ctx.save_for_backward(x, weight, mean, invstd, counts.to(torch.int32))
        return (torch.batch_norm_elemt if on_gpu else elemt)(x, weight, bias, mean, invstd, eps)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """slope: the gradient (B, D, h, w) of the result. Returns those of x (B, D, h, w), weight (D,) and bias (D,)."""
        x, weight, mean, invstd, counts = ctx.saved_tensors
        slope = _dense(slope)
        wants = ctx.needs_input_grad
        reduce = torch.batch_norm_backward_reduce if x.is_cuda else backward_reduce
        sum_slope, sum_product, to_weight, to_bias = reduce(slope, x, mean, invstd, weight, wants[0], wants[1], wants[2])
        to_x = None
        if wants[0]:
            sums = torch.cat([sum_slope, sum_product])
            dist.all_reduce(sums)
            sum_slope, sum_product = torch.split(sums, len(sum_slope))
            back = torch.batch_norm_backward_elemt if x.is_cuda else backward_elemt
            to_x = back(slope, x, mean, invstd, weight, sum_slope, sum_product, counts)
        return to_x, to_weight, to_bias, None, None, None, None


def _dense(x: Tensor) -> Tensor:
    """x with its channels first or last in memory: torch's kernels know no other order."""
    return x if x.is_contiguous(memory_format=torch.channels_last) else x.contiguous()


# What follows has the arguments of the kernels that torch has on GPUs alone. Other devices take it, and tests compare it with
# batch norm.


def stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Mean and 1 / sqrt(variance + eps) of each channel of x (B, D, h, w), each (D,), in float32 for half precision."""
    wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
    var, mean = torch.var_mean(wide, (0, 2, 3), correction=0)
    return mean, (var + eps).rsqrt()


def gather_stats(
    x: Tensor, means: Tensor, invstds: Tensor, running_mean: Tensor | None, running_var: Tensor | None,
    momentum: float, eps: float, counts: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Mean and 1 / sqrt(variance + eps) of all processes' pixels, from those of each process (R, D) and their numbers (R,).

    Moves the running mean and the running variance (D,), which is the one with N - 1, by `momentum`.
    """
    share, total = (counts / counts.sum()).unsqueeze(1), counts.sum()
    mean = (share * means).sum(0)
    var = (share * (invstds**-2 - eps + (means - mean).square())).sum(0)
    if running_mean is not None and running_var is not None:
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((var * total / (total - 1)).to(running_var.dtype), momentum)
    return mean, (var + eps).rsqrt()


def elemt(x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, invstd: Tensor, eps: float) -> Tensor:
    """(x - mean) · invstd · weight + bias for x (B, D, h, w), the others (D,)."""
    scale = invstd if weight is None else invstd * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    return (x * _wide(scale) + _wide(shift)).to(x.dtype)


def backward_reduce(
    slope: Tensor, x: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None, for_x: bool, for_weight: bool, for_bias: bool
) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
    """The sums over this process's pixels of slope and slope · (x - mean), and the gradients of weight and bias; each (D,)."""
    wide = slope.to(mean.dtype)
    sum_slope, sum_product = wide.sum((0, 2, 3)), (wide * (x.to(mean.dtype) - _wide(mean))).sum((0, 2, 3))
    return sum_slope, sum_product, sum_product * invstd if for_weight else None, sum_slope.clone() if for_bias else None


def backward_elemt(
    slope: Tensor, x: Tensor, mean: Tensor, invstd: Tensor, weight: Tensor | None, sum_slope: Tensor, sum_product: Tensor,
    counts: Tensor,
) -> Tensor:  # fmt: skip
    """The gradient of x (B, D, h, w), from the sums over all processes' pixels (D,) and the numbers of pixels (R,)."""
    scale = invstd if weight is None else invstd * weight
    pixels = counts.sum()
    centred = slope - _wide(sum_slope / pixels) - (x - _wide(mean)) * _wide(invstd.square() * sum_product / pixels)
    return (centred * _wide(scale)).to(x.dtype)


def _wide(values: Tensor) -> Tensor:
    """(D,) -> (1, D, 1, 1)."""
    return values.view(1, -1, 1, 1)
