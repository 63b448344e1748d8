"""UniMatch: FixMatch with two strong views, and with the weak view through perturbed features (arXiv:2208.09910).

L_u = λ·L_fp + µ/2·(L_s1 + L_s2), equation 8: L_s1 and L_s2 are FixMatch's loss on two strong views, L_fp is that loss on the weak
view whose feature maps lose channels between backbone and head. One teacher's answer on the weak view is the target of all three.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.models import Segmenter


@contextmanager
def dropped_channels(network: Segmenter, images: int, probability: float) -> Iterator[None]:
    """In this context the last `images` of a batch lose whole channels of all maps that the head reads.

    Each channel is 0 with this probability, and 1 / (1 - probability) as large otherwise (arXiv:2208.09910 §3.3; its code drops
    the channels of the maps that the decoder takes). The auxiliary classifier reads the maps as they are.
    """

    def disturb(head: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        maps: list[Tensor] = inputs[0]
        kept = [torch.cat([each[:-images], F.dropout2d(each[-images:], probability)]) for each in maps]
        return (kept, *inputs[1:])

    hook = network.head.register_forward_pre_hook(disturb)
    try:
        yield
    finally:
        hook.remove()
