"""What a run gives its trackers, and what it remembers of them in trackers.json so that a resumed run draws no step twice.

A run that resumes after a kill takes some steps again and logs them again; a tracker is not given again what it has. A tracker
that is switched on only when a run resumes is given the earlier steps from log.jsonl.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pydantic import BaseModel, Field

from segctl.errors import InputError, did_you_mean, first_line
from segctl.files import as_record, read_json, write_json
from segctl.runs import PUT_BACK, Count, RunFolder
from segctl.schema.run import TrainRun

PARTS = {
    "lr": "train/lr", "gradient_norm": "train/gradient_norm", "data_s": "time/data_s", "step_s": "time/step_s",
    "images_per_s": "time/images_per_s", "memory_mb": "memory/peak_mb", "loss": "loss/total",
}  # fmt: skip
"""The curve of each field of a step report. Terms are named loss/<term>, and scores validation/<name>."""


class TrackerRecord(BaseModel):
    """What trackers.json keeps of a tracker. id: its name for the run.  sent: the last step it was given, for each kind."""

    id: str = ""
    sent: dict[str, Count] = Field(default_factory=dict)


class Tracker(Protocol):
    """Where curves go. A method that fails ends the tracking, not the run."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point to each of some curves."""

    def show(self, step: int, images: Sequence[Path]) -> None:
        """Show the worst images of a validation, worst first, as PNG files."""

    def close(self, *, finished: bool) -> None:
        """Write what is left. finished: whether the run has ended, and was not stopped."""


class _Kind(NamedTuple):
    """A kind of tracker. place: `file.Class` beside this file, imported only if it is asked for.  package: what it needs."""

    place: str
    package: str


KINDS_OF_TRACKERS = {
    "tensorboard": _Kind("tensorboard.Board", "tensorboard"),
    "wandb": _Kind("wandb.WandbRun", "wandb"),
    "mlflow": _Kind("mlflow.MlflowRun", "mlflow"),
    "trackio": _Kind("trackio.TrackioRun", "trackio"),
}


def require_trackers(names: Sequence[str]) -> None:
    """Raise InputError for a tracker that is unknown, not installed, or meant to send what it may not send."""
    for name in names:
        if name not in KINDS_OF_TRACKERS:
            known = list(KINDS_OF_TRACKERS)
            raise InputError(f"--track '{name}' is not known{did_you_mean(name, known)}", f"use {', '.join(known)}")
        package = KINDS_OF_TRACKERS[name].package
        try:
            import_module(package)
            _class_of(name).require()
        except ImportError as error:
            raise InputError(
                f"--track {name} needs the package {package}, which is not installed",
                f'run `pip install "segctl[{name}]"`, or leave out --track {name}; log.jsonl has the same numbers',
            ) from error


def _class_of(name: str) -> Any:
    file, kind = KINDS_OF_TRACKERS[name].place.split(".")
    return getattr(import_module(f"segctl.train.trackers.{file}"), kind)


def trackers_of(folder: RunFolder, asked: Sequence[str]) -> tuple[str, ...]:
    """The trackers of a run that is resumed: those it has already, and those that are asked for."""
    drawn = ["tensorboard"] if folder.tensorboard.is_dir() else []
    return tuple(dict.fromkeys([*drawn, *_read_records(folder), *asked]))


def _read_records(folder: RunFolder) -> dict[str, TrackerRecord]:
    if not folder.trackers.is_file():
        return {}
    tree = read_json(folder.trackers, PUT_BACK)
    kept = tree if isinstance(tree, dict) else {"": tree}
    return {name: as_record(record, TrackerRecord, f"'{folder.trackers}'", PUT_BACK) for name, record in kept.items()}


class Tracking:
    """The open trackers of a run."""

    def __init__(
        self, folder: RunFolder, run: TrainRun, names: Sequence[str], steps_taken: int, note: Callable[[str], None]
    ) -> None:
        """Open them; log.jsonl holds the first `steps_taken` steps and no later ones. Raises InputError if one does not open."""
        self.folder, self.note = folder, note
        self.records = _read_records(folder)
        self.open: dict[str, Tracker] = {}
        for name in names:
            record = self.records.setdefault(name, TrackerRecord())
            try:
                self.open[name] = _class_of(name)(folder, run, record, steps_taken, note)
            except Exception as error:  # each package has errors of its own
                raise InputError(
                    f"--track {name} cannot start: {first_line(error)}",
                    f"leave out --track {name}, or remove '{folder.trackers}' if the run has it already",
                ) from error
        self._keep()
        for event in folder.read_log():
            self.event(event["event"], event)

    def event(self, kind: str, content: Mapping[str, Any]) -> None:
        """Write the numbers of one event of log.jsonl; only steps and validations have any."""
        if kind == "step":
            found = {curve: content[name] for name, curve in PARTS.items()}
            found |= {f"loss/{term}": value for term, value in content["terms"].items()}
        elif kind == "validation":
            found = {f"validation/{name}": value for name, value in content["scores"].items()}
        else:
            return
        values = {curve: float(value) for curve, value in found.items() if value is not None and math.isfinite(value)}
        self._each(kind, content["step"], lambda tracker: tracker.write(content["step"], values))

    def show(self, step: int, images: Sequence[Path]) -> None:
        """Show the worst images of a validation."""
        self._each("images", step, lambda tracker: tracker.show(step, images))

    def close(self, *, finished: bool) -> None:
        """Close every tracker."""
        for name in list(self.open):
            self._try(name, lambda tracker: tracker.close(finished=finished))
        self.open.clear()

    def _each(self, kind: str, step: int, work: Callable[[Tracker], None]) -> None:
        for name in list(self.open):
            sent = self.records[name].sent
            if step > sent.get(kind, 0):
                self._try(name, work)
                sent[kind] = step
        self._keep()

    def _try(self, name: str, work: Callable[[Tracker], None]) -> None:
        """Do something with a tracker. One that fails is left out from then on, because a run must not end for its curves."""
        try:
            work(self.open[name])
        except Exception as error:  # each package has errors of its own
            del self.open[name]
            self.note(f"warning: --track {name} has ended: {first_line(error)}; the run goes on, and log.jsonl has every number")

    def _keep(self) -> None:
        write_json(self.folder.trackers, {name: record.model_dump() for name, record in self.records.items()})
