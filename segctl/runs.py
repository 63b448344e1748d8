"""The folder of a run: the names of its files, and finding runs.

    runs/<name>/
        run.yaml            the resolved run; loads like a preset
        environment.json    versions, device, command, roots, data fingerprint, teacher
        log.jsonl           one event a line: step, validation, teacher, end
        train.log           the same for people
        last.pt  best.pt    checkpoints to resume from, and the best validation's weights
        model.pt            weights only; written when the run has finished, so its presence means "finished"
        profile.json        where a step's time goes, after --profile; profile.md the same for people, trace.json.gz for Perfetto
        tensorboard/        event files, after --tensorboard
        eval/<split>/       scores.json  per_image.csv  per_class.csv  counts.npz  confusion.npz  worst/

Every file appears under its own name only when it is whole.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segctl.commands import command_line
from segctl.errors import InputError
from segctl.files import read_json
from segctl.schema.load import read_tree, validate_run
from segctl.schema.run import DistillRun, TrainRun


@dataclass(frozen=True)
class RunFolder:
    """The paths inside a run's folder; none of them need exist."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def run_yaml(self) -> Path:
        return self.path / "run.yaml"

    @property
    def environment(self) -> Path:
        return self.path / "environment.json"

    @property
    def log(self) -> Path:
        return self.path / "log.jsonl"

    @property
    def train_log(self) -> Path:
        return self.path / "train.log"

    @property
    def profile(self) -> Path:
        """The result of --profile; profile.md beside it holds the same for people."""
        return self.path / "profile.json"

    @property
    def trace(self) -> Path:
        return self.path / "trace.json.gz"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def last(self) -> Path:
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / "best.pt"

    @property
    def model(self) -> Path:
        return self.path / "model.pt"

    def evaluation(self, split: str) -> Path:
        return self.path / "eval" / split

    @property
    def finished(self) -> bool:
        return self.model.is_file()

    @property
    def preset_name(self) -> str | None:
        """The name of the run's preset; None if run.yaml cannot be read."""
        try:
            return self.read_run().name
        except InputError:
            return None

    def read_run(self) -> TrainRun:
        """The run as run.yaml describes it. Raises InputError if run.yaml is missing or invalid."""
        if not self.run_yaml.is_file():
            raise InputError(f"'{self.path}' is not a run: it has no run.yaml", "give a folder that `segctl train` wrote")
        return validate_run(read_tree(self.run_yaml), f"'{self.run_yaml}'")

    def read_environment(self) -> dict[str, Any]:
        """The content of environment.json; empty if there is none."""
        return read_json(self.environment) if self.environment.is_file() else {}

    def resume_line(self, data_root: Path | None = None) -> str:
        """The command that finishes this run, with the roots it was started with; `data_root` is another place of its data."""
        roots = {key: Path(kept) for key in ("data_root", "runs_root") if (kept := self.read_environment().get(key))}
        if data_root is not None:
            roots["data_root"] = data_root
        taught_by = (self.read_environment().get("teacher") or {}).get("preset")
        more = ["--trust-program"] if taught_by in ("torchscript", "export") else []
        return resume_line(self.path, self.read_run(), *more, **roots)

    def read_log(self) -> list[dict[str, Any]]:
        """The events of log.jsonl, without a last line that a kill left incomplete."""
        if not self.log.is_file():
            return []
        events = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            try:
                events.append(json.loads(line))
            except json.JSONDecodeError:
                break
        return events


def resume_line(folder: Path, run: TrainRun, *more: str, data_root: Path | None = None, runs_root: Path | None = None) -> str:
    """The command that resumes a run; `more` are further options of it."""
    verb = "distill" if isinstance(run, DistillRun) else "train"
    return command_line(verb, "--resume", "--run", folder, *more, data_root=data_root, runs_root=runs_root)


def find_runs(runs_root: Path) -> list[RunFolder]:
    """The runs directly under a folder, oldest first."""
    folders = [path.parent for path in runs_root.glob("*/run.yaml")] if runs_root.is_dir() else []
    return [
        RunFolder(path) for path in sorted(folders, key=lambda path: (path.joinpath("run.yaml").stat().st_mtime_ns, path.name))
    ]


def newest_finished(runs_root: Path, preset: str) -> RunFolder | None:
    """The run of a preset that finished last, or None."""
    finished = [run for run in find_runs(runs_root) if run.finished and run.preset_name == preset]
    return max(finished, key=lambda run: run.model.stat().st_mtime_ns, default=None)


def newest_unfinished(runs_root: Path, name: str) -> RunFolder:
    """The newest unfinished run in a folder of this name or a numbered sibling. Raises InputError if there is none."""
    pattern = re.compile(rf"{re.escape(name)}(-\d+)?")
    open_runs = [run for run in find_runs(runs_root) if pattern.fullmatch(run.name) and not run.finished]
    if not open_runs:
        raise InputError(
            f"there is no unfinished run of '{name}' under '{runs_root}'", "name one with --run, or start one without --resume"
        )
    return open_runs[-1]


def free_folder(runs_root: Path, name: str) -> RunFolder:
    """`runs_root/name`, or the first of `name-2`, `name-3` … that does not exist."""
    path, number = runs_root / name, 1
    while path.exists():
        number += 1
        path = runs_root / f"{name}-{number}"
    return RunFolder(path)
