"""Weights & Biases. Without a login the run is offline: its files lie in the run's folder, and `wandb sync` sends them later."""

import netrc
import os
import uuid
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from segctl.errors import InputError
from segctl.runs import RunFolder
from segctl.schema.run import TrainRun
from segctl.train.trackers.tracking import TrackerRecord

PROJECT = "segctl"
"""The project of a run, unless WANDB_PROJECT names another."""


class WandbRun:
    """A run of Weights & Biases."""

    @staticmethod
    def require() -> None:
        if os.environ.get("WANDB_MODE") == "online" and not _logged_in():
            raise InputError(
                "--track wandb: WANDB_MODE is online, but nobody is logged in",
                "run `wandb login`, or unset WANDB_MODE: the run is then tracked offline",
            )

    def __init__(
        self, folder: RunFolder, run: TrainRun, record: TrackerRecord, steps_taken: int, note: Callable[[str], None]
    ) -> None:
        self.wandb: Any = import_module("wandb")
        record.id = record.id or uuid.uuid4().hex[:8]
        mode = os.environ.get("WANDB_MODE") or ("online" if _logged_in() else "offline")
        self.run = self.wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT), name=folder.name, id=record.id, resume="allow", mode=mode,
            dir=str(folder.path), config=run.model_dump(mode="json"), settings=self.wandb.Settings(silent=True),
        )  # fmt: skip
        if mode == "offline":
            note(f"wandb is offline; to send the run later: `wandb sync {folder.path / 'wandb'}/offline-run-*`")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def show(self, step: int, images: Sequence[Path]) -> None:
        self.run.log({"worst": [self.wandb.Image(str(path), caption=path.stem) for path in images]}, step=step)

    def close(self, *, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)


def _logged_in() -> bool:
    """Whether wandb would find a key; the key itself is not read."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return host in netrc.netrc(os.environ.get("NETRC")).hosts
    except (OSError, netrc.NetrcParseError):
        return False
