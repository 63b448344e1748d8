"""Depthwise convolutions on a CPU in bfloat16: forward as torch does, backward in float32.

Torch's own gradient of a depthwise convolution in bfloat16 takes 3 to 7 times as long as the one in float32, and was two thirds
of a step of an EfficientNet-Lite (torch 2.14, a CPU with AMX, one thread, kernels 3×3 and 5×5, strides 1 and 2).
"""

from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segctl.models.timm_backbone import is_plain_convolution, padded_before


def quicken_depthwise(network: nn.Module) -> int:
    """Let the network's depthwise convolutions compute their gradients in float32 where autocast runs them in bfloat16 on a CPU.

    Returns how many there are. Names and types of weights do not change, nor does what they compute forward.
    """
    found = [module for module in network.modules() if isinstance(module, nn.Conv2d) and _is_depthwise(module)]
    for conv in found:
        # As a bound method: a copy of the network then has a copy of it that belongs to the copied layer.
        setattr(conv, "forward", MethodType(_forward, conv))  # noqa: B010  mypy forbids assigning to a method
    return len(found)


def _is_depthwise(conv: nn.Conv2d) -> bool:
    padded_with_zeros = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)
    return is_plain_convolution(conv) and padded_with_zeros and 1 < conv.groups == conv.in_channels


def _forward(conv: nn.Conv2d, maps: Tensor) -> Tensor:
    """(B, D, h, w) -> (B, D', h', w')."""
    half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if not (half and maps.device.type == "cpu" and torch.is_grad_enabled()):
        return type(conv).forward(conv, maps)
    maps = padded_before(conv, maps.bfloat16())
    found: Tensor = _Depthwise.apply(maps, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation)
    return found


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, weight: Tensor, bias: Tensor | None,
        stride: tuple[int, int], padding: tuple[int, int], dilation: tuple[int, int],
    ) -> Tensor:  # fmt: skip
        """maps bfloat16 (B, D, h, w), weight (D', 1, k, k), bias (D',) -> bfloat16 (B, D', h', w')."""
        ctx.save_for_backward(maps, weight, bias)
        ctx.places = stride, padding, dilation
        rounded = None if bias is None else bias.bfloat16()
        return F.conv2d(maps, weight.bfloat16(), rounded, stride, padding, dilation, maps.shape[1])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor | None, ...]:
        """slope: the gradient (B, D', h', w') of the result. Returns those of maps, weight and bias, in their types."""
        maps, weight, bias = ctx.saved_tensors
        stride, padding, dilation = ctx.places
        wants = list(ctx.needs_input_grad[:3])
        rounded = weight.bfloat16().float()  # what the forward pass multiplied by
        slope = slope.to(torch.float32, memory_format=torch.channels_last)  # in which float32 is fast
        to_maps = None
        around = [step * (side - 1) - pad for step, side, pad in zip(dilation, weight.shape[2:], padding, strict=True)]
        if wants[0] and stride == (1, 1) and weight.shape[0] == maps.shape[1] and min(around) >= 0:
            # Of a dilated one, torch's takes 5 times as long as the convolution with the turned kernel that it is.
            to_maps, wants[0] = F.conv2d(slope, rounded.flip(2, 3), None, 1, around, dilation, maps.shape[1]), False
        found, to_weight, to_bias = torch.ops.aten.convolution_backward(
            slope, maps.to(torch.float32, memory_format=torch.channels_last), rounded,
            None if bias is None else list(bias.shape),
            stride, padding, dilation, False, (0, 0), maps.shape[1], wants,
        )  # fmt: skip
        to_maps = found if to_maps is None else to_maps
        return None if to_maps is None else to_maps.to(maps.dtype), to_weight, to_bias, None, None, None
