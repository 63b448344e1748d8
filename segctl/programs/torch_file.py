"""Files that torch runs: .pt2 (torch.export) and TorchScript."""

import warnings
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from segctl.errors import InputError, first_line
from segctl.programs.base import Images, Program
from segctl.programs.facts import ProgramFacts, torch_facts


class TorchProgram(Program):
    """A .pt2 or TorchScript file, on the CPU. Opening one may run its code."""

    def __init__(self, path: Path, facts: ProgramFacts, kind: str, net: Any) -> None:
        super().__init__(path, facts)
        self.kind = kind
        self.net = net

    @staticmethod
    def open(path: Path, kind: str, threads: int | None = None) -> "TorchProgram":
        """Raises InputError as `open_program` does."""
        facts = torch_facts(path)  # first, because reading them runs no code
        if threads is not None:
            torch.set_num_threads(threads)  # torch has one number of threads for the whole process
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch's advice about its own formats is for the author
                net = torch.jit.load(path, map_location="cpu") if kind == "torchscript" else torch.export.load(path).module()  # type: ignore[no-untyped-call]
        except Exception as error:  # either loader raises many kinds
            raise InputError(
                f"cannot read the program in '{path}': {first_line(error)[:200]}", "export it again with this version of torch"
            ) from error
        return TorchProgram(path, facts, kind, net)

    def _run(self, images: Images) -> NDArray[Any]:
        with torch.inference_mode():
            found: NDArray[Any] = self.net(torch.from_numpy(images)).numpy()
        return found
