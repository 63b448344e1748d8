"""Run folders -> typed records. Reads files only, and says which file when one cannot be read."""

import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segctl.commands import command_line
from segctl.errors import InputError, SegctlError, did_you_mean
from segctl.files import read_json
from segctl.metrics.scores import SCORE_NAMES
from segctl.metrics.table import CountTable
from segctl.runs import RunFolder, find_runs
from segctl.schema.methods import method_of
from segctl.schema.run import DistillRun, TrainRun

TILES = ("image", "truth", "prediction", "error")

Color = tuple[int, int, int]


@dataclass(frozen=True)
class WorstImage:
    """An image the run does badly on; `tiles` are PNG files by kind (TILES)."""

    image: str
    miou_i: float | None
    tiles: Mapping[str, Path]


@dataclass(frozen=True)
class Evaluation:
    """What `segctl eval` left for one split. Scores are in percent, None where undefined.

    counts and confusion (int64 (C, C), rows truth) are None where their files are not there.
    """

    split: str
    scores: Mapping[str, float | None]
    per_class: tuple[Mapping[str, Any], ...]
    about: Mapping[str, Any]
    worst: tuple[WorstImage, ...]
    counts: CountTable | None
    confusion: NDArray[np.int64] | None

    @property
    def fingerprint(self) -> str:
        return str(self.about.get("fingerprint", ""))

    @property
    def binary(self) -> bool:
        return bool(self.about.get("binary", False))

    @property
    def trial(self) -> str:
        """Words that say that only a part of the dataset was scored, for a trial; empty for a whole one."""
        return str(self.about.get("trial") or "")

    @property
    def colors(self) -> dict[str, Color]:
        """Class name -> colour in the tiles; empty where the evaluation did not record them."""
        return {str(row["name"]): _color(row["color"]) for row in self.about.get("classes", []) if "color" in row}


@dataclass(frozen=True)
class Curves:
    """Training as it went: (step, value) pairs; scores in percent."""

    loss: tuple[tuple[int, float], ...]
    miou_d: tuple[tuple[int, float], ...]
    last_step: int
    weights_of: str | None
    """Which step's weights were kept, in words; None while the run has not ended."""


@dataclass(frozen=True)
class Run:
    """One run folder, read whole. `label` is its name, with its parent where two runs share a name."""

    folder: RunFolder
    label: str
    spec: TrainRun
    environment: Mapping[str, Any]
    curves: Curves
    evaluations: Mapping[str, Evaluation]

    @property
    def method(self) -> str:
        """The distillation method; `none` for a run without a teacher."""
        return method_of(self.spec.distiller if isinstance(self.spec, DistillRun) else None)

    @property
    def seed(self) -> int:
        return self.spec.train.seed

    @property
    def teacher(self) -> Mapping[str, Any]:
        """What environment.json says of the teacher; empty for a run without one."""
        return self.environment.get("teacher") or {}

    @property
    def data_root(self) -> Path | None:
        """The folder of prepared datasets that the run was trained from; None where an older segctl did not keep it."""
        kept = self.environment.get("data_root")
        return None if kept is None else Path(kept)


@dataclass(frozen=True)
class Collection:
    """The runs of a report, oldest first, and a sentence for each folder that could not be read."""

    runs: tuple[Run, ...]
    unreadable: tuple[str, ...]


def collect(folders: Sequence[Path], runs_root: Path) -> Collection:
    """The named run folders, or every run under `runs_root`.

    A fault in a named run is raised; under the root it is noted, so that one broken folder does not hide the others.
    """
    if folders:
        unique = list({path.resolve(): path for path in folders}.values())
        return Collection(_labelled([read_run(_existing(path, runs_root)) for path in unique]), ())
    found = find_runs(runs_root)
    if not found:
        raise InputError(
            f"there are no runs under '{runs_root}'",
            f"train one with `{command_line('train', '--preset', 'NAME', runs_root=runs_root)}`, or give --runs-root",
        )
    runs, faults = [], []
    for folder in found:
        try:
            runs.append(read_run(folder))
        except SegctlError as error:
            faults.append(error)
    if not runs:
        raise faults[0]
    return Collection(_labelled(runs), tuple(str(fault) for fault in faults))


def read_run(folder: RunFolder) -> Run:
    """One run with all its evaluations. Raises InputError naming the file that cannot be read."""
    splits = sorted(path.parent.name for path in folder.path.glob("eval/*/scores.json"))
    return Run(
        folder=folder,
        label=folder.path.resolve().name,
        spec=folder.read_run(),
        environment=_mapping(folder.read_environment(), folder.environment),
        curves=_curves(folder),
        evaluations={split: read_evaluation(folder.evaluation(split)) for split in splits},
    )


def read_evaluation(folder: Path) -> Evaluation:
    """One evaluated split. Raises InputError naming the file that is not what `segctl eval` writes."""
    path = folder / "scores.json"
    tree = _mapping(read_json(path), path)
    if not any(name in tree for name in SCORE_NAMES):
        raise _foreign(path, f"it has none of the scores {', '.join(SCORE_NAMES[:3])}, ...")
    rows = tree.get("per_class", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "class" in row for row in rows):
        raise _foreign(path, "per_class is not a list of rows with a class")
    about = _mapping(tree.get("about", {}), path)
    scores = {name: _score(tree.get(name), name, path) for name in SCORE_NAMES}
    per_class = tuple({key: value if key == "class" else _score(value, key, path) for key, value in row.items()} for row in rows)
    counts = CountTable.load(folder / "counts.npz") if (folder / "counts.npz").is_file() else None
    return Evaluation(
        folder.name, scores, per_class, about, _worst(folder / "worst"), counts, _confusion(folder / "confusion.npz", counts)
    )


def _existing(path: Path, runs_root: Path) -> RunFolder:
    if not path.is_dir():
        near = did_you_mean(path.name, [run.name for run in find_runs(runs_root)])
        line = command_line("report", runs_root=runs_root)
        raise InputError(f"there is no run at '{path}'{near}", f"`{line}` without a name takes every run")
    return RunFolder(path)


def _labelled(runs: list[Run]) -> tuple[Run, ...]:
    names = [run.label for run in runs]
    return tuple(
        Run(**{**vars(run), "label": f"{run.folder.path.resolve().parent.name}/{run.label}"})
        if names.count(run.label) > 1
        else run
        for run in runs
    )


def _curves(folder: RunFolder) -> Curves:
    events = folder.read_log()
    steps = [event for event in events if event.get("event") == "step"]
    validations = [event for event in events if event.get("event") == "validation"]
    end = next((event for event in events if event.get("event") == "end"), {})
    return Curves(
        loss=_points([(event.get("step"), event.get("loss")) for event in steps]),
        miou_d=_points([(event.get("step"), event.get("scores", {}).get("mIoU_D")) for event in validations]),
        last_step=max((int(event.get("step", 0)) for event in [*steps, *validations, end]), default=0),
        weights_of=end.get("weights_of"),
    )


def _points(pairs: list[tuple[Any, Any]]) -> tuple[tuple[int, float], ...]:
    """The pairs of finite numbers: a diverged loss is no point."""
    return tuple((int(step), float(value)) for step, value in pairs if _is_number(step) and _is_number(value))


def _worst(folder: Path) -> tuple[WorstImage, ...]:
    path = folder / "worst.json"
    if not path.is_file():
        return ()
    try:
        return tuple(
            WorstImage(
                str(entry["image"]),
                _score(entry["mIoU_I"], "mIoU_I", path),
                {kind: folder / Path(entry["files"][kind]).name for kind in TILES},
            )
            for entry in read_json(path)
        )
    except (TypeError, KeyError) as error:
        raise _foreign(path, f"an entry has no {error}") from error


def _confusion(path: Path, counts: CountTable | None) -> NDArray[np.int64] | None:
    if counts is None or not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            matrix: NDArray[np.int64] = file["matrix"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise _foreign(path, str(error)) from error
    if matrix.shape != (len(counts.class_names),) * 2 or matrix.dtype != np.int64:
        raise _foreign(path, f"it holds {matrix.dtype} {matrix.shape}, wanted int64 of {len(counts.class_names)} classes")
    return matrix


def _score(value: Any, name: str, path: Path) -> float | None:
    if _is_number(value):
        return float(value)
    if value is None or isinstance(value, float):
        return None  # NaN is another program's way to say undefined
    raise _foreign(path, f"{name} is {value!r}, wanted a number or null")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mapping(tree: Any, path: Path) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise _foreign(path, f"it holds a {type(tree).__name__}, wanted an object")
    return tree


def _color(value: Sequence[int]) -> Color:
    red, green, blue = value
    return int(red), int(green), int(blue)


def _foreign(path: Path, fault: str) -> InputError:
    return InputError(f"'{path}' is not a file that segctl wrote: {fault}", "run `segctl eval` on that run again")
