"""OpenVINO's IR: a .xml file, and the weights in a .bin file of the same name beside it."""

from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from segctl.errors import InputError, first_line
from segctl.programs.base import Images, Program
from segctl.programs.facts import EXPORT_AGAIN, KEY, ProgramFacts, facts_of


def require_openvino() -> Any:
    """The package openvino. Raises InputError where it is not installed."""
    try:
        import openvino
    except ImportError as error:
        raise InputError(
            "a file for OpenVINO needs the package 'openvino'", 'install it with `pip install "segctl[openvino]"`'
        ) from error
    return openvino


class OpenVinoProgram(Program):
    """A .xml file of OpenVINO, on the CPU."""

    kind = "openvino"

    def __init__(self, path: Path, facts: ProgramFacts, compiled: Any) -> None:
        super().__init__(path, facts)
        self.compiled = compiled

    @staticmethod
    def open(path: Path, threads: int | None = None) -> "OpenVinoProgram":
        """Raises InputError as `open_program` does."""
        openvino = require_openvino()
        weights = path.with_suffix(".bin")
        if not weights.is_file():
            raise InputError(f"'{path}' has lost its weights, '{weights.name}' beside it", EXPORT_AGAIN)
        try:
            core = openvino.Core()
            model = core.read_model(str(path))
            text = str(model.get_rt_info([KEY]).value) if model.has_rt_info([KEY]) else None
        except Exception as error:  # OpenVINO raises RuntimeError for all
            raise InputError(
                f"cannot read '{path}': it is damaged, or not a file of OpenVINO: {first_line(error)[:200]}", EXPORT_AGAIN
            ) from error
        facts = facts_of(text, f"'{path}'")
        if facts.checksum != xxhash.xxh3_128_hexdigest(weights.read_bytes()):
            raise InputError(f"'{weights}' is damaged: its content does not match its checksum", EXPORT_AGAIN)
        try:
            # Without the hint, OpenVINO may compute in half precision where the CPU can.
            options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32"}
            if threads is not None:
                options["INFERENCE_NUM_THREADS"] = threads
            compiled = core.compile_model(model, "CPU", options)
        except Exception as error:
            raise InputError(f"OpenVINO cannot run '{path}': {first_line(error)[:200]}", EXPORT_AGAIN) from error
        return OpenVinoProgram(path, facts, compiled)

    def _run(self, images: Images) -> NDArray[Any]:
        return np.array(self.compiled([images])[0])
