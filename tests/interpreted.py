"""Triton kernels without a GPU: in Triton's interpreter, and through NVIDIA's assembler."""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

WHY_NOT = "the kernels are written in Triton, which is not installed"


def interpret(script: Path, *arguments: str) -> str:
    """What a script prints in a process whose kernels are interpreted. Triton decides that at its import."""
    pytest.importorskip("triton", reason=WHY_NOT)
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(script), *arguments], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def assembled(
    kernel: Any,
    architecture: int,
    constants: dict[str, Any],
    types: dict[str, object],
    folder: Path,
    sixteens: Iterable[str] = (),
) -> tuple[int, int]:
    """Registers and bytes spilled. types: of the arguments that are not 32-bit integers; constants: with the number of warps.

    sixteens: arguments that are multiples of 16, which Triton sees for itself when it starts a kernel.
    """
    import triton
    from triton.backends import nvidia
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    constexprs = {(names.index(n),): v for n, v in constants.items() if n in names}
    attributes = {(names.index(name),): [["tt.divisibility", 16]] for name in sixteens}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constexprs, attrs=attributes)
    options = {name: constants[name] for name in ("num_warps", "num_stages") if name in constants}
    built = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    (folder / "kernel.ptx").write_text(built.asm["ptx"], encoding="utf-8")
    assembler = Path(nvidia.__file__).parent / "bin" / "ptxas"
    target = f"--gpu-name=sm_{architecture}{'a' if architecture == 90 else ''}"
    command = [str(assembler), "-v", target, str(folder / "kernel.ptx"), "-o", str(folder / "kernel.cubin")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    found = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill stores", said)
    assert found[0] is not None
    assert found[1] is not None
    return int(found[0][1]), int(found[1][1])
