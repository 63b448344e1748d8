"""The scalars of a run as TensorBoard event files. log.jsonl holds the same numbers.

A run that resumes after a kill writes some steps again; its new event file tells TensorBoard to drop those steps from the earlier
files. If TensorBoard is switched on only when a run resumes, the earlier steps are copied from log.jsonl.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from segctl.errors import InputError
from segctl.runs import RunFolder

HINT = 'run `pip install "segctl[tensorboard]"`, or leave out --tensorboard; log.jsonl has the same numbers'
PARTS = {
    "lr": "train/lr", "gradient_norm": "train/gradient_norm", "data_s": "time/data_s", "step_s": "time/step_s",
    "images_per_s": "time/images_per_s", "memory_mb": "memory/peak_mb", "loss": "loss/total",
}  # fmt: skip
"""The curve of each field of a step report. Terms are named loss/<term>, and scores validation/<name>."""


def require_tensorboard() -> None:
    """Raise InputError if the package is not installed."""
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise InputError("--tensorboard needs the package tensorboard, which is not installed", HINT) from error


class Board:
    """Writes event files to a folder. first_step: the first step that will be written; later steps in the folder are dropped."""

    def __init__(self, folder: Path, first_step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=first_step if first_step > 1 else None)

    def event(self, kind: str, content: Mapping[str, Any]) -> None:
        """Write the numbers of one event of log.jsonl; only steps and validations have any."""
        if kind == "step":
            found = {curve: content[name] for name, curve in PARTS.items()}
            found |= {f"loss/{term}": value for term, value in content["terms"].items()}
        elif kind == "validation":
            found = {f"validation/{name}": value for name, value in content["scores"].items()}
        else:
            return
        for curve, value in found.items():
            if value is not None and math.isfinite(value):
                self.writer.add_scalar(curve, value, content["step"])
        self.writer.flush()


def open_board(folder: RunFolder, steps_taken: int) -> Board:
    """A board for a run that continues after `steps_taken` steps; its log.jsonl holds these steps and no later ones."""
    if folder.tensorboard.is_dir():
        return Board(folder.tensorboard, steps_taken + 1)
    board = Board(folder.tensorboard, 1)
    for event in folder.read_log():
        board.event(event["event"], event)
    return board
