"""Running exported files. Imports no torch for .onnx and OpenVINO: their memory is measured in a process without it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segctl.errors import InputError
from segctl.programs import open_program
from segctl.programs.onnx_file import open_session
from segctl.programs.open import kind_of

ImageSize = tuple[int, int]
"""Height and width of an image, in pixels."""
Image = NDArray[np.uint8]
"""(1, H, W, 3), RGB."""
Segment = Callable[[Image], object]
"""Segments an image and waits for the result."""


@dataclass(frozen=True)
class Conditions:
    """Under what everything is measured. device: a name of torch's.

    trusted: whether a .pt2 or TorchScript file may be read, which may run its code.
    """

    size: ImageSize
    threads: int
    device: str
    trusted: bool = False


def file_form(file: Path) -> str | None:
    """What the table calls the format of a file: onnx, pt2, torchscript or openvino; None for a file of another kind."""
    kind = kind_of(file)
    return "pt2" if kind == "torch" else kind


def only_size(file: Path, *, trusted: bool) -> ImageSize | None:
    """Height and width of the only images that a file takes; None for any. Raises InputError if it cannot be read."""
    if file_form(file) != "onnx":
        size = open_program(file, trusted=trusted).facts.size
        return None if size is None else (size[0], size[1])
    height, width = _input_of(open_session(file), file).shape[1:3]
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def segment_by_file(file: Path, conditions: Conditions) -> Segment:
    """Load an exported file. Raises InputError if it cannot be read, or cannot run under the conditions.

    Any .onnx file with the input of segctl's is measured, those of others too; of the other formats, files of segctl.
    """
    if file_form(file) != "onnx":
        program = open_program(file, conditions.device, trusted=conditions.trusted, threads=conditions.threads)
        _require_size(file, conditions.size, program.facts.size or [None, None])
        return program.run
    session = open_session(file, conditions.device, conditions.threads)
    asked = _input_of(session, file)
    _require_size(file, conditions.size, asked.shape[1:3])
    name: str = asked.name
    return lambda image: session.run(None, {name: image})


def _require_size(file: Path, size: ImageSize, takes: list[Any]) -> None:
    if any(isinstance(wanted, int) and wanted != side for side, wanted in zip(size, takes, strict=True)):
        height, width = takes
        raise InputError(
            f"'{file}' takes only images of {height}×{width}, got {size[0]}×{size[1]}",
            f"use --size {height}x{width}, or export it without --size",
        )


def _input_of(session: Any, file: Path) -> Any:
    """The input of an .onnx file: its `name` and `shape`, (B, H, W, 3), free sides as text. InputError for another program."""
    found = session.get_inputs()
    if len(found) != 1 or found[0].type != "tensor(uint8)" or len(found[0].shape) != 4 or found[0].shape[3] != 3:
        got = ", ".join(f"{one.type} {one.shape}" for one in found) or "nothing"
        raise InputError(
            f"'{file}' takes {got}, wanted one tensor(uint8) of (B, H, W, 3)", "give a file that `segctl export` wrote"
        )
    return found[0]
