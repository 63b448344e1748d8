"""Trackio. It keeps runs on this machine, where TRACKIO_DIR says; `trackio show` draws them."""

import io
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from importlib import import_module
from pathlib import Path
from typing import Any

from segctl.runs import RunFolder
from segctl.schema.run import TrainRun
from segctl.train.trackers.tracking import TrackerRecord

PROJECT_NAME = "segctl"


class TrackioRun:
    """A run of Trackio."""

    @staticmethod
    def require() -> None:
        """Trackio needs no login on this machine."""

    def __init__(
        self, folder: RunFolder, run: TrainRun, record: TrackerRecord, steps_taken: int, note: Callable[[str], None]
    ) -> None:
        self.trackio: Any = import_module("trackio")
        record.id = record.id or f"{folder.name}-{uuid.uuid4().hex[:8]}"  # Trackio knows a run by its name
        config = run.model_dump(mode="json")
        with redirect_stdout(io.StringIO()):  # it prints a long greeting; segctl's own note has what matters
            self.run = self.trackio.init(project=PROJECT_NAME, name=record.id, config=config, resume="allow", embed=False)
        note(f"trackio: to look at the run '{record.id}': `trackio show --project {PROJECT_NAME}`")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def show(self, step: int, images: Sequence[Path]) -> None:
        self.run.log({f"worst/{rank}": self.trackio.Image(str(path)) for rank, path in enumerate(images)}, step=step)

    def close(self, *, finished: bool) -> None:
        with redirect_stdout(io.StringIO()):
            self.run.finish()
