"""What torch.compile needs of a machine, and its failures in one sentence."""

import os
import shutil
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from segctl.errors import InputError, SegctlError

CXX = ("g++", "clang++")
CC = ("cc", "gcc", "clang")
"""Triton looks for any C compiler."""


def require_compiler(device: torch.device) -> None:
    """Raise InputError if this machine lacks what torch.compile builds its kernels with.

    For a CPU that is a C++ compiler. For a GPU, Triton makes the kernels and builds what starts them: with a C compiler and
    Python's header files.
    """
    on_gpu = device.type == "cuda"
    variable, known, language = ("CC", CC, "C") if on_gpu else ("CXX", CXX, "C++")
    named = os.environ.get(variable)
    if not any(shutil.which(name) for name in ([named] if named else known)):
        *others, last = known
        looked = f"{variable} names '{named}'" if named else f"neither {', '.join(others)} nor {last} is on the PATH"
        raise InputError(
            f"train.compile: got true, but this machine has no {language} compiler ({looked})",
            f"install {'gcc' if on_gpu else 'g++'}, or leave train.compile at false",
        )
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if on_gpu and not header.is_file():
        raise InputError(
            f"train.compile: got true, but Python's header files are not installed: there is no '{header}'",
            "install them (python3-dev on Debian and Ubuntu, python3-devel on Fedora), or leave train.compile at false",
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
