"""The exponential moving average of a network's weights and statistics."""

import copy
from typing import Any

import torch
from torch import Tensor, nn


class MovingAverage(nn.Module):
    """`module` holds decay · average + (1 - decay) · network after every `update`, and a copy of the network after the first.

    from_mean: update n has the decay min(1 - 1/n, decay), so the average begins as the plain mean of the networks so far. The
    first ones, which have learnt next to nothing, then weigh no more than the others.
    Buffers of real numbers, such as batch norm's running mean, are averaged too; whole numbers are copied.  A state dict has the
    names of torch's AveragedModel.  An update takes one pass over the weights and does not wait for the device.
    Source: arXiv:1703.01780, equation 1; `from_mean` follows its authors' code (`update_ema_variables` in pytorch/main.py of
    CuriousAI/mean-teacher), which gives the first network half of the first average.
    """

    n_averaged: Tensor
    """int64 scalar: the updates so far."""

    def __init__(self, network: nn.Module, decay: float, *, from_mean: bool = False) -> None:
        super().__init__()
        self.module, self.decay, self.from_mean = copy.deepcopy(network), decay, from_mean
        device = next(network.parameters()).device
        self.register_buffer("n_averaged", torch.zeros((), dtype=torch.long, device=device))
        self._updates = 0  # n_averaged for the host, where no step is skipped

    @torch.no_grad()
    def update(self, network: nn.Module, taken: Tensor | None = None) -> None:
        """Average the network in.

        taken: a bool scalar on the device; for a step that fp16 skipped it is False, and nothing changes.
        """
        ours, theirs = ([*each.parameters(), *each.buffers()] for each in (self.module, network))
        pairs = list(zip(ours, theirs, strict=True))
        real = [(mine, other.detach()) for mine, other in pairs if mine.is_floating_point()]
        averages, news = [mine.detach() for mine, _ in real], [other for _, other in real]
        if taken is not None:
            # Only the device knows what was skipped, so it decides by the weight of the new values, which is 0 for such a step.
            first = 1 / (self.n_averaged + 1) if self.from_mean else (self.n_averaged == 0).float()
            weight = first.clamp(min=1 - self.decay) * taken
            changes = torch._foreach_sub(news, averages)
            torch._foreach_mul_(changes, weight)
            torch._foreach_add_(averages, changes)
        elif self._updates:
            torch._foreach_lerp_(
                averages, news, max(1 / (self._updates + 1), 1 - self.decay) if self.from_mean else 1 - self.decay
            )
        else:
            torch._foreach_copy_(averages, news)
        whole = [(mine, other) for mine, other in pairs if not mine.is_floating_point()]
        if whole:
            torch._foreach_copy_([mine for mine, _ in whole], [other for _, other in whole])
        self.n_averaged += 1 if taken is None else taken
        self._updates += 1

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self._updates = int(self.n_averaged)
