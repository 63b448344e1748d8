"""Bilinear resizing and bin averages as products with two matrices, one for each side.

On a GPU, torch adds up the gradients of both in no fixed order, so it refuses them under train.deterministic; a product of
matrices has a fixed order. Only that setting uses them, and exported files for the bins: torch's kernels need no matrices, and
scores were made with those.
"""

import torch
from torch import Tensor

from segctl.models.tracing import tracing


def wanted_for(maps: Tensor) -> bool:
    """Whether deterministic forms are asked for on a device where torch has none; maps of any shape."""
    return maps.is_cuda and torch.are_deterministic_algorithms_enabled()


def resized(maps: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    """(B, D, h, w) -> (B, D, *size), bilinear."""
    rows = _between(maps.shape[-2], size[0], maps, align_corners)
    return _products(maps, rows, _between(maps.shape[-1], size[1], maps, align_corners))


def bin_means(maps: Tensor, bins: int) -> Tensor:
    """(B, D, h, w) -> (B, D, bins, bins): the mean of each bin, as torch's adaptive_avg_pool2d places them."""
    return _products(maps, _averages(maps.shape[-2], bins, maps), _averages(maps.shape[-1], bins, maps))


def _products(maps: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """maps (B, D, h, w), rows (H, h), columns (W, w) -> (B, D, H, W), computed in at least float32; type and layout stay."""
    if tracing():  # the two contexts below cannot be traced; a file computes in float32
        return rows @ maps @ columns.T
    # Autocast would take the product in half precision, which torch's own kernels do not.
    with torch.autocast(maps.device.type, enabled=False):
        found = rows @ maps.to(rows.dtype) @ columns.T
    channels_last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    return found.to(maps.dtype, memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def _between(length: int, wanted: int, like: Tensor, align_corners: bool) -> Tensor:
    """(wanted, length): each row weighs the two nearest of `length` pixel centres; places beyond the border move onto it."""
    pixels = torch.arange(wanted, device=like.device, dtype=torch.float64)
    place = pixels * (length - 1) / max(1, wanted - 1) if align_corners else ((pixels + 0.5) * length / wanted - 0.5).clamp(min=0)
    grid = torch.arange(length, device=like.device, dtype=torch.float64)
    nearness = (1 - (place.clamp(max=length - 1).unsqueeze(1) - grid).abs()).clamp(min=0)
    return nearness.to(torch.promote_types(like.dtype, torch.float32))


def _averages(length: int, bins: int, like: Tensor) -> Tensor:
    """(bins, length): row i is the mean of pixels floor(i · length / bins) up to ceil((i + 1) · length / bins)."""
    number = torch.arange(bins, device=like.device).unsqueeze(1)
    grid = torch.arange(length, device=like.device)
    inside = (grid >= number * length // bins) & (grid < ((number + 1) * length + bins - 1) // bins)
    return (inside.double() / inside.sum(1, keepdim=True)).to(torch.promote_types(like.dtype, torch.float32))
