"""What torch.compile needs of a machine, and its failures in one sentence."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from segctl.errors import InputError, SegctlError

CXX = ("g++", "clang++")


def require_compiler() -> None:
    """Raise InputError if this machine has no C++ compiler: torch.compile needs one for CPU and GPU alike."""
    named = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([named] if named else CXX)):
        looked = f"CXX names '{named}'" if named else f"neither {' nor '.join(CXX)} is on the PATH"
        raise InputError(
            f"train.compile: got true, but this machine has no C++ compiler ({looked})",
            "install g++, or leave train.compile at false",
        )


@contextmanager
def compile_failure_in_words(device: torch.device) -> Iterator[None]:
    """Say in one sentence why torch cannot compile the networks."""
    try:
        yield
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = " ".join(lines[:2]) or type(error).__name__  # the first line may only say which part failed
        raise SegctlError(
            f"train.compile: torch cannot compile the networks for {device}: {reason}",
            "resume or start again with --set train.compile=false",
        ) from error
