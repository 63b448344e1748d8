"""Sending a small tensor to the device without waiting for it."""

import torch
from torch import Tensor


def upload(values: Tensor, device: torch.device) -> Tensor:
    """Values of any shape, which lie in main memory, on the device.

    A GPU copies from page-locked memory while the host continues; from any other memory the host waits until the GPU is done with
    all that it was told before.
    """
    if device.type != "cuda":
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)
