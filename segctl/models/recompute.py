"""Activation checkpointing: a backbone's blocks keep nothing but their inputs, and are computed again in the backward pass.

Blocks are taken and not whole stages, because while a block is computed again all of its activations are there: of ResNet101's
33 blocks one, of its four stages nearly half the network.  Heads are left as they are: their one large convolution would cost
more time than its output takes memory.
Source: arXiv:1604.06174.  Gradients are those of the plain backward pass; the price is a second forward pass of the blocks.
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
    """Let the network's blocks do so whenever they train, and return how many there are. Names of weights stay as they are."""
    blocks = list(_blocks(network))
    for block in blocks:
        # As a method, whose copy in a copied network belongs to the copied block.
        setattr(block, "forward", MethodType(_recomputed, block))  # noqa: B010  a method is not assigned to, says mypy
    return len(blocks)


def _blocks(network: nn.Module) -> Iterator[nn.Module]:
    """The outermost modules in a sequence that hold layers of their own: residual blocks, whatever a network calls them."""
    in_sequence = isinstance(network, nn.Sequential | nn.ModuleList)
    for child in network.children():
        if in_sequence and not isinstance(child, nn.Sequential | nn.ModuleList) and _has_layers(child):
            yield child
        else:
            yield from _blocks(child)


def _has_layers(module: nn.Module) -> bool:
    """Whether something inside has weights of a layer, which a norm with an activation in it has not."""
    return any(weight.ndim > 1 for child in module.children() for weight in child.parameters())


def _recomputed(block: nn.Module, *inputs: Any) -> Any:
    """The block's own forward, checkpointed where a backward pass will follow."""
    forward = MethodType(type(block).forward, block)
    if not (block.training and torch.is_grad_enabled()):
        return forward(*inputs)
    if torch.compiler.is_compiling():  # the compiler writes running statistics once, outside of what it computes again
        return checkpoint(forward, *inputs, use_reentrant=False)

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _running_statistics_kept(block)

    return checkpoint(forward, *inputs, use_reentrant=False, context_fn=contexts)


@contextmanager
def _running_statistics_kept(block: nn.Module) -> Iterator[None]:
    """Batch norms count the batch in copies of their running statistics, because it has counted in the real ones."""
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
