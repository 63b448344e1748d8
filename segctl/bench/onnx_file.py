"""Running an exported .onnx file. Imports no torch: the memory of such a file is measured in a process without it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segctl.errors import InputError, first_line

ImageSize = tuple[int, int]
"""Height and width of an image, in pixels."""
Image = NDArray[np.uint8]
"""(1, H, W, 3), RGB."""
Segment = Callable[[Image], object]
"""Segments an image and waits for the result."""


@dataclass(frozen=True)
class Conditions:
    """Under what everything is measured. device: a name of torch's."""

    size: ImageSize
    threads: int
    device: str


def segment_by_onnx(file: Path, conditions: Conditions) -> Segment:
    """Load an exported file. Raises InputError if it cannot be read, or cannot run under the conditions."""
    session = session_of(file, conditions.threads, conditions.device)
    asked = input_of(session, file)
    height, width = asked.shape[1:3]
    if any(isinstance(wanted, int) and wanted != side for side, wanted in zip(conditions.size, (height, width), strict=True)):
        raise InputError(
            f"'{file}' takes images of {height}×{width} alone, got {conditions.size[0]}×{conditions.size[1]}",
            f"use --size {height}x{width}, or export it without --size",
        )
    name: str = asked.name
    return lambda image: session.run(None, {name: image})


def session_of(file: Path, threads: int, device: str) -> Any:
    """onnxruntime's session. Raises InputError for a device that it was not built for, and for what is no model."""
    import onnxruntime

    provider = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "mps": "CoreMLExecutionProvider"}[
        device.partition(":")[0]
    ]
    if provider not in onnxruntime.get_available_providers():
        raise InputError(
            f"'{file}' cannot run on {device}: this onnxruntime has no {provider}",
            "install onnxruntime-gpu, or use --device cpu",
        )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = threads, 1, 3
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=[provider])
    except Exception as error:  # onnxruntime raises a dozen kinds for bytes that are no model
        raise InputError(f"cannot read '{file}': {first_line(error)}", "export it again") from error


def input_of(session: Any, file: Path) -> Any:
    """The input of an exported file: its `name` and `shape`, (B, H, W, 3), free sides as text. InputError for another program."""
    found = session.get_inputs()
    if len(found) != 1 or found[0].type != "tensor(uint8)" or len(found[0].shape) != 4 or found[0].shape[3] != 3:
        got = ", ".join(f"{one.type} {one.shape}" for one in found) or "nothing"
        raise InputError(
            f"'{file}' takes {got}, wanted one tensor(uint8) of (B, H, W, 3)", "give a file that `segctl export` wrote"
        )
    return found[0]
