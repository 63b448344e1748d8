"""Run folders -> typed records. Errors name the file that cannot be read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segctl.commands import command_line
from segctl.errors import InputError, SegctlError, did_you_mean, os_error_in_words, printable
from segctl.evaluate.scores_record import EVALUATE_AGAIN, About
from segctl.files import as_record, content_key, read_json, real_path
from segctl.metrics.scores import SCORE_NAMES
from segctl.metrics.store import load_confusion, load_table
from segctl.metrics.table import CountTable
from segctl.runs import RunFolder, find_runs
from segctl.schema.run import TrainRun, method_in_words

TILES = ("image", "truth", "prediction", "error")

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class WorstImage:
    """An image with one of the lowest scores. tiles: PNG files by kind (TILES)."""

    image: str
    miou_i: float | None
    tiles: Mapping[str, Path]


@dataclass(frozen=True)
class Evaluation:
    """The files that `segctl eval` wrote for one split. Scores are in percent, None where undefined.

    counts, confusion (int64 (C, C), rows are the truth): None where their files are missing.
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
    def program(self) -> str | None:
        """The name of the exported file that was scored in place of the run's network; None for the network itself."""
        return self.about.get("program")

    @property
    def trial(self) -> str:
        """A sentence about the part of the dataset that was scored, for a dataset prepared with --limit; else empty."""
        return str(self.about.get("trial") or "")

    @property
    def colors(self) -> dict[str, Rgb]:
        """Class name -> colour in the tiles; empty for evaluations that did not record colours."""
        return {str(row["name"]): _color(row["color"]) for row in self.about.get("classes") or [] if row.get("color")}


@dataclass(frozen=True)
class Curves:
    """The course of training: (step, value) pairs, scores in percent.

    weights_of: the step whose weights were kept, in words; None while the run has not ended.  not_finite: how many logged losses
    and scores are NaN or infinite, as those of a diverged run, which are left out of the points.
    """

    loss: tuple[tuple[int, float], ...]
    miou_d: tuple[tuple[int, float], ...]
    last_step: int
    weights_of: str | None
    not_finite: int = 0


@dataclass(frozen=True)
class Run:
    """Everything in a run folder. label: its name, with the name of its parent where two runs share a name.

    stopped_evaluations: splits whose evaluation was stopped before it wrote scores.json.
    """

    folder: RunFolder
    label: str
    spec: TrainRun
    environment: Mapping[str, Any]
    curves: Curves
    evaluations: Mapping[str, Evaluation]
    stopped_evaluations: tuple[str, ...] = ()

    @property
    def method(self) -> str:
        """The distillation method; `none` for a run without a teacher, `pretrain` for one that makes a backbone."""
        return method_in_words(self.spec)

    @property
    def seed(self) -> int:
        return self.spec.train.seed

    @property
    def teacher(self) -> Mapping[str, Any]:
        """The teacher in environment.json; empty for a run without a teacher."""
        return self.environment.get("teacher") or {}

    @property
    def teachers(self) -> list[Mapping[str, Any]]:
        """The members of an ensemble in environment.json, or the teacher alone; empty for a run without a teacher."""
        return list(self.teacher.get("members") or ([self.teacher] if self.teacher else []))

    @property
    def parameters(self) -> int | None:
        """Parameters of one prediction; for a run of an older segctl those of training, auxiliary classifier included."""
        found = self.cost.get("parameters", self.environment.get("parameters"))
        return None if found is None else int(found)

    @property
    def cost(self) -> Mapping[str, Any]:
        """`parameters`, `gflop` and `size` [H, W] of one prediction; empty for a run of an older segctl."""
        return self.environment.get("cost") or {}

    @property
    def labels_in_words(self) -> str:
        """Which training labels a network made, and how many images were trained on without one; empty if people made all."""
        about = self.environment.get("dataset") or {}
        made, without = about.get("predicted_labels"), about.get("unlabelled_images")
        words = []
        if made:
            kept = (
                ""
                if made["min_confidence"] is None
                else f", less certain pixels ignored (--min-confidence {made['min_confidence']})"
            )
            words.append(
                f"{made['images']} of its {made['of']} training labels were made by the network '{made['network']}' "
                f"(sha256 {made['weights_sha256'][:12]}){kept}"
            )
        if without:
            words.append(f"it trained on {without} image{'s' if without > 1 else ''} without labels too")
        return "; ".join(words)

    @property
    def lost_log(self) -> str:
        """What a report lacks because the run's log is gone, in a sentence; empty where it is there, or no step was taken yet."""
        log = self.folder.log
        if log.is_file() or not (log.exists() or self.folder.finished or self.folder.last.is_file()):
            return ""
        fault = "is not a plain file" if log.exists() else "is missing"
        return f"'{log}' {fault}, so its training curves, its last step and the step of its weights are not shown"

    @property
    def data_root(self) -> Path | None:
        """The folder of prepared datasets that the run was trained from; None where an older segctl did not keep it."""
        kept = self.environment.get("data_root")
        return None if kept is None else Path(kept)


def with_exported_files(run: Run) -> list[Run]:
    """The run with the evaluations of its own network, and one more for each exported file, which then stands beside it.

    An exported file's evaluation is kept as `val@model.onnx`, and becomes one of `val`.
    """
    own = {name: found for name, found in run.evaluations.items() if found.program is None}
    files: dict[str, dict[str, Evaluation]] = {}
    for name, found in run.evaluations.items():
        if found.program is not None:
            split, _, rest = name.partition(f"@{found.program}")
            place = split + rest.replace("+", "@", 1)
            files.setdefault(found.program, {})[place] = replace(found, split=place)
    return [
        replace(run, evaluations=own),
        *(replace(run, label=f"{run.label} as {_as_label(name)}", evaluations=found) for name, found in sorted(files.items())),
    ]


@dataclass(frozen=True)
class Collection:
    """The runs of a report, oldest first, and one sentence for each folder that could not be read."""

    runs: tuple[Run, ...]
    unreadable: tuple[str, ...]


def collect(folders: Sequence[Path], runs_root: Path) -> Collection:
    """The named run folders, or every run under `runs_root`.

    A fault becomes a sentence in `unreadable`, so that one broken folder does not hide the others. Raises the first fault if no
    run can be read, and InputError for a named folder that does not exist.
    """
    if folders:
        found = [_existing(path, runs_root) for path in {real_path(path): path for path in folders}.values()]
    else:
        found = find_runs(runs_root)
    if not found:
        raise InputError(
            f"there are no runs under '{runs_root}'",
            f"train one with `{command_line('train', '--preset', 'NAME', runs_root=runs_root)}`, or give --runs-root",
        )
    runs: list[Run] = []
    faults: list[SegctlError] = []
    for folder in found:
        try:
            runs.append(read_run(folder))
        except SegctlError as error:
            faults.append(error)
        except OSError as error:
            faults.append(os_error_in_words(error))
    if not runs:
        raise faults[0]
    odd = _of_other_images(runs)
    runs = [run for run in runs if run.folder.path not in odd]
    faults += odd.values()
    return Collection(_labelled(runs), tuple(str(fault) for fault in faults))


def _of_other_images(runs: Sequence[Run]) -> dict[Path, InputError]:
    """Folders of runs whose counts are of other classes, images or labels than most counts of the same data, with the fault."""
    kinds: dict[tuple[str, str, str], dict[str, list[Run]]] = {}
    for run in runs:
        for split, found in run.evaluations.items():
            if found.counts is not None:
                place = (run.spec.data.dataset, split, found.fingerprint)
                pixels = sorted(zip(found.counts.names, found.counts.valid_pixels.tolist(), strict=True))
                kinds.setdefault(place, {}).setdefault(content_key([found.counts.class_names, pixels]), []).append(run)
    odd: dict[Path, InputError] = {}
    for (_, split, _), found_here in kinds.items():
        usual = max(found_here.values(), key=len)  # the first, and so the oldest, of equals
        for run in (run for members in found_here.values() if members is not usual for run in members):
            path, other = run.folder.evaluation(split) / "counts.npz", usual[0].folder.path
            fault = f"its classes, images or labels differ from those of '{other}', which is scored on the same data"
            odd[run.folder.path] = _foreign(path, fault)
    return odd


def read_run(folder: RunFolder) -> Run:
    """One run with all its evaluations. Raises InputError naming the file that cannot be read, or is another run's."""
    folder.require_own_model()
    splits = sorted(path.parent.name for path in folder.path.glob("eval/*/scores.json"))
    begun = sorted(path.name for path in folder.path.glob("eval/*") if path.is_dir() and not path.name.startswith("."))
    return Run(
        folder=folder,
        label=_as_label(real_path(folder.path).name),
        spec=folder.read_run(),
        environment=_mapping(folder.read_environment(), folder.environment),
        curves=_curves(folder),
        evaluations={split: read_evaluation(folder.evaluation(split)) for split in splits},
        stopped_evaluations=tuple(name for name in begun if name not in splits),
    )


def read_evaluation(folder: Path) -> Evaluation:
    """One evaluated split. Raises InputError naming the file that is not what `segctl eval` writes."""
    path = folder / "scores.json"
    tree = _mapping(read_json(path, EVALUATE_AGAIN), path)
    if not any(name in tree for name in SCORE_NAMES):
        raise _foreign(path, f"it has none of the scores {', '.join(SCORE_NAMES[:3])}, ...")
    rows = tree.get("per_class", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) and isinstance(row.get("class"), str) for row in rows):
        raise _foreign(path, "per_class is not a list of rows with a class")
    about = _mapping(tree.get("about", {}), path)
    as_record(about, About, f"'{path}'", EVALUATE_AGAIN)
    scores = {name: _score(tree.get(name), name, path) for name in SCORE_NAMES}
    per_class = tuple({key: value if key == "class" else _score(value, key, path) for key, value in row.items()} for row in rows)
    counts = load_table(folder / "counts.npz", EVALUATE_AGAIN) if (folder / "counts.npz").is_file() else None
    if counts is not None:
        _require_fitting(counts, per_class, about, folder)
    return Evaluation(
        folder.name,
        scores,
        per_class,
        about,
        _worst(folder / "worst"),
        counts,
        None if counts is None else load_confusion(folder / "confusion.npz", len(counts.class_names), EVALUATE_AGAIN),
    )


def _require_fitting(counts: CountTable, per_class: Sequence[Mapping[str, Any]], about: Mapping[str, Any], folder: Path) -> None:
    """Raise InputError for a counts.npz from which the scores beside it were not computed."""
    classes = tuple(row["class"] for row in per_class)
    wanted = counts.class_names[1:] if about.get("binary") and len(counts.class_names) == 2 else counts.class_names
    if classes != wanted:
        raise _foreign(folder / "counts.npz", "its classes are not those of scores.json")


def _existing(path: Path, runs_root: Path) -> RunFolder:
    if not path.is_dir():
        near = did_you_mean(path.name, [run.name for run in find_runs(runs_root)])
        line = command_line("report", runs_root=runs_root)
        raise InputError(f"there is no run at '{path}'{near}", f"run `{line}` without a name to report every run")
    return RunFolder(path)


def _labelled(runs: list[Run]) -> tuple[Run, ...]:
    """The runs with labels of their own: the folder's name, with its parent where names repeat, or else with its whole path."""
    paths = [real_path(run.folder.path) for run in runs]
    for text in (lambda path: f"{path.parent.name}/{path.name}", str):
        names = [run.label for run in runs]
        runs = [
            replace(run, label=_as_label(text(path))) if names.count(run.label) > 1 else run
            for run, path in zip(runs, paths, strict=True)
        ]
    return tuple(runs)


def _as_label(name: str) -> str:
    """A name that can stand between backticks, on one line."""
    return printable(name).replace("`", "'")


def _curves(folder: RunFolder) -> Curves:
    events = folder.read_log()
    steps = [event for event in events if event.get("event") == "step"]
    validations = [event for event in events if event.get("event") == "validation"]
    end = next((event for event in events if event.get("event") == "end"), {})
    losses = [(event.get("step"), event.get("loss")) for event in steps]
    scores = [(event.get("step"), event.get("scores", {}).get("mIoU_D")) for event in validations]
    return Curves(
        loss=_points(losses),
        miou_d=_points(scores),
        last_step=max((int(event.get("step", 0)) for event in [*steps, *validations, end]), default=0),
        weights_of=end.get("weights_of"),
        not_finite=sum(isinstance(value, float) and not math.isfinite(value) for _, value in [*losses, *scores]),
    )


def _points(pairs: list[tuple[Any, Any]]) -> tuple[tuple[int, float], ...]:
    """The pairs whose value is a finite number."""
    return tuple((int(step), float(value)) for step, value in pairs if _is_number(step) and _is_number(value))


def _worst(folder: Path) -> tuple[WorstImage, ...]:
    """The worst images, each of its tiles decoded once, so that a broken one shows here and not in the middle of a report."""
    path = folder / "worst.json"
    if not path.is_file():
        return ()
    entries = read_json(path, EVALUATE_AGAIN)
    if not isinstance(entries, list):
        raise _foreign(path, f"it holds a {type(entries).__name__}, wanted a list")
    try:
        found = tuple(
            WorstImage(
                str(entry["image"]),
                _score(entry["mIoU_I"], "mIoU_I", path),
                {kind: folder / Path(entry["files"][kind]).name for kind in TILES},
            )
            for entry in entries
        )
    except (TypeError, KeyError) as error:
        raise _foreign(path, f"an entry has no {error}") from error
    from segctl.data.files.archives import PlainFile
    from segctl.data.files.pictures import read_image

    for tile in (tile for image in found for tile in image.tiles.values()):
        try:
            read_image(PlainFile(str(tile), tile))
        except InputError as error:
            raise InputError(error.message, EVALUATE_AGAIN) from error
    return found


def _score(value: Any, name: str, path: Path) -> float | None:
    if _is_number(value):
        return float(value)
    if value is None or isinstance(value, float):
        return None  # NaN, with which other programs say undefined
    raise _foreign(path, f"{name} is {value!r}, wanted a number or null")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _mapping(tree: Any, path: Path) -> dict[str, Any]:
    if not isinstance(tree, dict):
        raise _foreign(path, f"it holds a {type(tree).__name__}, wanted an object")
    return tree


def _color(value: Sequence[int]) -> Rgb:
    red, green, blue = value
    return int(red), int(green), int(blue)


def _foreign(path: Path, fault: str) -> InputError:
    return InputError(f"'{path}' is not a file that segctl wrote: {fault}", EVALUATE_AGAIN)
