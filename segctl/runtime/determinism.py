"""Whether a process computes the same bits for the same input every time."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from segctl.errors import SegctlError

WORKSPACE, WORKSPACES = "CUBLAS_WORKSPACE_CONFIG", (":4096:8", ":16:8")
"""cuBLAS adds in a fixed order if this variable has one of these values. It reads the variable when CUDA starts."""


def set_determinism(wanted: bool) -> None:
    """Make every operation of this process deterministic, or an error if it cannot be; or allow the fastest kernels.

    Without determinism cuDNN times its kernels for each input size and keeps the fastest. That pays because all crops have one
    size.
    """
    if wanted and os.environ.get(WORKSPACE) not in WORKSPACES:
        os.environ[WORKSPACE] = WORKSPACES[0]
    torch.use_deterministic_algorithms(wanted)
    torch.backends.cudnn.benchmark = not wanted


def determinism_in_words(wanted: bool, device: torch.device) -> list[str]:
    """What to print about determinism before step 1; nothing on a CPU without --deterministic."""
    if wanted:
        return ["deterministic algorithms only (train.deterministic): the same bits every time on the same machine"]
    if device.type == "cuda":
        return ["cuDNN picks the fastest kernels; the last digits may differ between runs (--deterministic prevents this)"]
    return []


@contextmanager
def any_image_size() -> Iterator[None]:
    """Stop cuDNN from timing its kernels: images of many sizes would make it do so for each size."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def missing_determinism_in_words(device: torch.device) -> Iterator[None]:
    """Name the operation in one sentence if torch has no deterministic form of it."""
    try:
        yield
    except RuntimeError as error:
        found = re.match(r"(\S+) does not have a deterministic implementation", str(error))
        if found is None:
            raise
        raise SegctlError(
            f"train.deterministic: torch has no deterministic form of '{found[1]}' on {device}",
            "choose a backbone that does not use it, or leave out --deterministic",
        ) from error
