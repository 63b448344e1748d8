"""Activation checkpointing: a backbone's blocks store only their inputs, and the backward pass computes them again.

The unit is a block and not a stage, because all activations of a unit are in memory while it is computed again: one of
ResNet101's 33 blocks, against nearly half the network for one of its four stages. Heads are not checkpointed: computing their one
large convolution again costs much time and saves little memory.
Source: arXiv:1604.06174. Gradients equal those of the plain backward pass; the price is a second forward pass of the blocks.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def recompute_blocks(network: nn.Module) -> int:
    """Checkpoint the network's blocks whenever they train, and return how many there are. Names of weights do not change."""
    blocks = list(_blocks(network))
    for block in blocks:
        # As a bound method: a copy of the network then has a copy of it that belongs to the copied block.
        setattr(block, "forward", MethodType(_recomputed, block))  # noqa: B010  mypy forbids assigning to a method
    return len(blocks)


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules in a sequence that contain layers: residual blocks, whatever a network calls them."""
    in_sequence = isinstance(network, nn.Sequential | nn.ModuleList)
    for child in network.children():
        if in_sequence and not isinstance(child, nn.Sequential | nn.ModuleList) and _has_layers(child):
            yield child
        else:
            yield from _blocks(child)


def _has_layers(module: nn.Module) -> bool:
    """Whether a child has weights of a layer, more than one-dimensional; a norm with an activation inside has none."""
    return any(weight.ndim > 1 for child in module.children() for weight in child.parameters())


def _recomputed(block: nn.Module, *inputs: Any) -> Any:
    """The block's own forward, checkpointed if a backward pass will follow."""
    forward = MethodType(type(block).forward, block)
    if not (block.training and torch.is_grad_enabled()):
        return forward(*inputs)
    if torch.compiler.is_compiling():  # the compiler updates running statistics once, outside of what it computes again
        return checkpoint(forward, *inputs, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _running_statistics_kept(block)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _running_statistics_kept(block: nn.Module) -> Iterator[None]:
    """Inside, batch norms update copies of their running statistics: the first forward pass has updated the real ones already."""
    norms = [layer for layer in block.modules() if isinstance(layer, _BatchNorm)]
    kept = [dict(norm.named_buffers(recurse=False)) for norm in norms]
    for norm, buffers in zip(norms, kept, strict=True):
        for name, buffer in buffers.items():
            setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, buffers in zip(norms, kept, strict=True):
            for name, buffer in buffers.items():
                setattr(norm, name, buffer)
