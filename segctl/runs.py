"""The folder of a run: the names of its files, and finding runs.

    runs/<name>/
        run.yaml            the resolved run; loads like a preset
        environment.json    versions, device, command, roots, data fingerprint, teacher
        log.jsonl           one event a line: step, validation, teacher, end
        train.log           the same for people
        last.pt  best.pt    checkpoints to resume from, and the best validation's weights
        model.safetensors   weights, and in its header the run and its classes; written last, so its presence means "finished";
                            runs of version 0.1 have a model.pt instead
        profile.json        where a step's time goes, after --profile; profile.md the same for people, trace.json.gz for Perfetto
        tensorboard/        event files, after --track tensorboard
        trackers.json       what the trackers of --track have been given
        export/             files that run without segctl: model.onnx and others
        eval/<split>/       scores.json  per_image.csv  per_class.csv  counts.npz  confusion.npz  worst/

Every file appears under its own name only when it is whole.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from segctl.commands import command_line
from segctl.errors import InputError
from segctl.files import as_record, parse_json, read_json, read_plain_text
from segctl.schema.load import read_tree, validate_run
from segctl.schema.run import TrainRun, verb_of
from segctl.schema.same_run import STEERED, conflicts

MODEL_FILE, OLD_MODEL_FILE = "model.safetensors", "model.pt"
"""The file that a finished run ships, and its name up to version 0.1."""

MODEL_HEADER = "segctl"
"""The key in a .safetensors header under which segctl keeps what the weights belong to. It is the only key, because the library
writes several in no fixed order, and equal networks must give equal files."""

PUT_BACK = "put back the file that segctl wrote, or start a new run"

HUB = "hf:"
"""What a name on the hub of Hugging Face begins with, such as hf:ORG/NAME."""

Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class DatasetRecord(BaseModel):
    """The dataset that a run was started with."""

    name: str | None = None
    fingerprint: str | None = None


class TeacherRecord(BaseModel):
    """The teacher that a run was started with."""

    run: str
    sha256: str
    preset: str | None = None
    given_preset: str | None = None
    license: str | None = None
    scores: dict[str, float | None] | None = None
    images: Count | None = None
    members: list["TeacherRecord"] = []
    """Of an ensemble; `run` then joins theirs, and `sha256` is a hash of theirs and of the weights."""
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """How much it counts among the members of an ensemble."""

    @property
    def is_program(self) -> bool:
        """Whether reading its file, or a member's, may run code."""
        return self.preset in ("torchscript", "export") or any(member.is_program for member in self.members)


class Extension(BaseModel):
    """One `--extend-to`."""

    from_: Count = Field(alias="from")
    to: Count
    at_step: Count = 0


class ChangedSettings(BaseModel):
    """Settings by path, such as `optim.lr`, that the run was resumed with after a step."""

    to: dict[str, Any]
    at_step: Count = 0


class CostRecord(BaseModel):
    """What one prediction of the run's network costs: see `segctl.models.cost.Cost`."""

    parameters: Count
    gflop: Seconds
    size: Annotated[list[Count], Field(min_length=2, max_length=2)]


class Environment(BaseModel):
    """The fields of environment.json that a command reads back. A run of an earlier version may lack some."""

    segctl: str | None = None
    python: str | None = None
    torch: str | None = None
    timm: str | None = None
    platform: str | None = None
    device: str | None = None
    precision: str | None = None
    command: str | None = None
    data_root: str | None = None
    runs_root: str | None = None
    caller_commit: str | None = None
    started: str | None = None
    finished: str | None = None
    seconds: Seconds = 0.0
    steps: Count | None = None
    seconds_per_step: Seconds | None = None
    peak_memory_mb: Seconds | None = None
    parameters: Count | None = None
    cost: CostRecord | None = None
    method: str | None = None
    initial_weights: str | None = None
    initial_weights_sha256: str | None = None
    initial_weights_license: str | None = None
    dataset: DatasetRecord | None = None
    teacher: TeacherRecord | None = None
    extended: list[Extension] = []
    changed: list[ChangedSettings] = []


class Event(BaseModel):
    """A line of log.jsonl."""

    event: str
    step: Count | None = None


class StepEvent(Event):
    """A report of some steps."""

    step: Count
    loss: float
    terms: dict[str, float] = {}
    step_s: float | None = None


class ValidationEvent(Event):
    """The scores of a validation, in percent."""

    step: Count
    scores: dict[str, float | None]


class EndEvent(Event):
    """The end of a run, and the weights that it ships."""

    step: Count
    weights_of: str


_KINDS: dict[str, type[Event]] = {"step": StepEvent, "validation": ValidationEvent, "end": EndEvent}


def on_the_hub(path: Path) -> bool:
    """Whether `path` is really a name such as hf:ORG/NAME."""
    return str(path).startswith(HUB)


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
    def lock(self) -> Path:
        """Held by the process that writes this run."""
        return self.path / ".lock"

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
    def trackers(self) -> Path:
        return self.path / "trackers.json"

    @property
    def last(self) -> Path:
        return self.path / "last.pt"

    @property
    def best(self) -> Path:
        return self.path / "best.pt"

    @property
    def model(self) -> Path:
        """The network that the run ships: model.safetensors, or the model.pt of an older run."""
        new, old = self.path / MODEL_FILE, self.path / OLD_MODEL_FILE
        return old if old.is_file() and not new.is_file() else new

    def evaluation(self, split: str) -> Path:
        return self.path / "eval" / split

    @property
    def exports(self) -> Path:
        """The files that `segctl export` wrote."""
        return self.path / "export"

    @property
    def finished(self) -> bool:
        return self.model.is_file()

    def require_finished(self, data_root: Path | None = None) -> None:
        """Raise InputError, with the command that finishes the run, for a run that has not finished or is none."""
        self.read_run()
        if not self.finished:
            raise InputError(
                f"the run '{self.path}' has not finished: it has no {MODEL_FILE}",
                f"finish it with `{self.resume_line(data_root)}`",
            )

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
        """The content of environment.json; empty if there is none. Raises InputError that names a field which is damaged."""
        if not self.environment.is_file():
            return {}
        tree: dict[str, Any] = read_json(self.environment, PUT_BACK)
        as_record(tree, Environment, f"'{self.environment}'", PUT_BACK)
        return tree

    def require_own_model(self, run: Any = None) -> None:
        """Raise InputError if the network's file is of another run than run.yaml describes: its scores would go by this name.

        run: the preset in the file, where the file has been read; otherwise the header of model.safetensors gives it. A file or
        preset that cannot be read passes, because whoever reads it says why.
        """
        if not self.run_yaml.is_file():
            return
        try:
            mine, theirs = self.read_run(), validate_run(self._preset_in_model() if run is None else run, f"'{self.model}'")
        except InputError:
            return
        # A resumed or extended run may ship weights from before the change, and run.yaml says how to score by default.
        free = (*STEERED, "train.steps")
        found = [each for each in conflicts(mine, theirs) if each.path not in free and not each.path.startswith("evaluate.")]
        if found:
            more = f" (and {len(found) - 1} more settings differ)" if len(found) > 1 else ""
            raise InputError(
                f"'{self.model}' is of another run than '{self.run_yaml}': its {found[0].path} is {found[0].after!r}, "
                f"wanted {found[0].before!r}{more}",
                "put back the file that this run wrote, or give the folder of the run that the file is of",
            )

    def _preset_in_model(self) -> dict[str, Any]:
        """The preset in the header of model.safetensors. Raises InputError if it holds none."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path / MODEL_FILE, framework="np") as opened:
                run = json.loads((opened.metadata() or {})[MODEL_HEADER])["run"]
            if isinstance(run, dict):
                return run
        except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError):
            pass
        raise InputError(f"'{self.path / MODEL_FILE}' names no preset")

    def require_environment(self) -> "Environment":
        """environment.json as a record. Raises InputError for a run without it: nothing else says what it was started with."""
        if not self.environment.is_file():
            raise InputError(f"the run '{self.path}' has lost its environment.json", PUT_BACK)
        return as_record(self.read_environment(), Environment, f"'{self.environment}'", PUT_BACK)

    @property
    def license(self) -> str:
        """The licences of the weights that this run began with and learnt from, in words; empty where none is recorded."""
        environment = self.read_environment()
        teacher = environment.get("teacher") or {}
        of_teacher = f"learnt from '{teacher.get('run')}': {teacher['license']}" if teacher.get("license") else ""
        return "; ".join(part for part in (environment.get("initial_weights_license"), of_teacher) if part)

    def resume_line(self, data_root: Path | None = None) -> str:
        """The command that finishes this run, with the roots it was started with; `data_root` is another place of its data."""
        roots = {key: Path(kept) for key in ("data_root", "runs_root") if (kept := self.read_environment().get(key))}
        if data_root is not None:
            roots["data_root"] = data_root
        environment = as_record(self.read_environment(), Environment, f"'{self.environment}'", PUT_BACK)
        more = ["--trust-program"] if environment.teacher is not None and environment.teacher.is_program else []
        return resume_line(self.path, self.read_run(), *more, **roots)

    def read_log(self) -> list[dict[str, Any]]:
        """The events of log.jsonl, without a last line that a kill or a full disk left incomplete.

        Raises InputError that names the line and the field where the log is not what segctl writes.
        """
        if not self.log.is_file():
            return []
        *lines, last = read_plain_text(self.log, PUT_BACK).split("\n")
        events = []
        for number, line in enumerate([*lines, *([last] if last.endswith("}") else [])], 1):
            where = f"line {number} of '{self.log}'"
            event = parse_json(line, where, PUT_BACK)
            kind = event.get("event") if isinstance(event, dict) else None
            as_record(event, _KINDS.get(kind, Event) if isinstance(kind, str) else Event, where, PUT_BACK)
            events.append(event)
        return events


def resume_line(folder: Path, run: TrainRun, *more: str, data_root: Path | None = None, runs_root: Path | None = None) -> str:
    """The command that resumes a run; `more` are further options of it."""
    return command_line(verb_of(run), "--resume", "--run", folder, *more, data_root=data_root, runs_root=runs_root)


def find_runs(runs_root: Path) -> list[RunFolder]:
    """The runs directly under a folder, oldest first."""
    folders = [path.parent for path in runs_root.glob("*/run.yaml")] if runs_root.is_dir() else []
    return [
        RunFolder(path) for path in sorted(folders, key=lambda path: (path.joinpath("run.yaml").stat().st_mtime_ns, path.name))
    ]


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
