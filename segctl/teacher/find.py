"""Where a run's teacher is: the file, folder or Hugging Face name of `--teacher`, or a run of the teacher's preset.

Of several finished runs the newest is taken, or with `--teacher best` the one with the best validation score: the authors of
JML-KD train the teacher at least three times and distil from the best (zifuwanggg/JDTLosses, README.md at 68ce8ac).
"""

from pathlib import Path
from typing import NamedTuple

from segctl.commands import command_line
from segctl.errors import InputError
from segctl.runs import MODEL_FILE, RunFolder, find_runs, on_the_hub
from segctl.schema.presets.generic import preset_arguments
from segctl.schema.pretrain import TIMM
from segctl.schema.run import DistillRun

BEST = Path("best")
"""The value of --teacher that takes the best finished run by validation."""


class FoundTeacher(NamedTuple):
    """The file of a teacher, and which runs it was chosen from, in a sentence; empty where there was no choice."""

    path: Path
    note: str = ""


class _Candidate(NamedTuple):
    """A finished run of the teacher's preset, and the validation mIoU_D in percent of the weights in its file, if known."""

    run: RunFolder
    score: float | None

    def __str__(self) -> str:
        return f"{self.run.name} {'without a score' if self.score is None else f'{self.score:.2f}'}"


def find_teacher(
    run: DistillRun, given: Path | None, runs_root: Path, data_root: Path | None = None, fingerprint: str | None = None
) -> FoundTeacher:
    """The weights of `--teacher` (a run folder, a file, a Hugging Face model, or `best`), else of the newest finished run of the
    teacher's preset under `runs_root`.

    data_root: for the command in the error message.  fingerprint: of the dataset; runs on other data cannot be the best.
    Raises InputError if there is no teacher.
    """
    if given is None or given == BEST:
        if given == BEST and BEST.exists():
            raise InputError(
                "--teacher 'best' means the best finished run, but there is also a file or folder 'best' here",
                f"give its whole path, --teacher {BEST.absolute()}, or run the command in another folder",
            )
        return _of_preset(run, given == BEST, runs_root, data_root, fingerprint)
    if on_the_hub(given) or is_hugging_face(given):
        return FoundTeacher(given)
    if given.is_dir():
        folder = RunFolder(given)
        if not folder.finished:
            raise InputError(
                f"--teacher '{given}' is not a finished run: it has no {MODEL_FILE}",
                f"finish it with `{folder.resume_line()}`, or give another" if folder.run_yaml.is_file() else "give another",
            )
        return FoundTeacher(folder.model)
    if str(given).startswith(TIMM):
        raise InputError(
            f"--teacher '{given}' is a backbone without a head, so it has no classes to teach",
            "train a head on it with `segctl train --preset foundation`, or match its features with `segctl pretrain`",
        )
    if not given.is_file():
        raise InputError(f"--teacher '{given}' does not exist", f"give a run folder or a {MODEL_FILE}")
    return FoundTeacher(given)


def _of_preset(run: DistillRun, best: bool, runs_root: Path, data_root: Path | None, fingerprint: str | None) -> FoundTeacher:
    """The newest or the best finished run of the teacher's preset, with the others' scores in its note."""
    preset = run.teacher.preset
    finished = [folder for folder in find_runs(runs_root) if folder.finished and folder.preset_name == preset]
    if not finished:
        line = command_line("train", *preset_arguments(preset, run.data.dataset), data_root=data_root, runs_root=runs_root)
        raise InputError(
            f"there is no finished run of the teacher preset '{preset}' under '{runs_root}'",
            f"make one with `{line}`, or give --teacher RUN_OR_FILE",
        )
    newest_first = sorted(finished, key=lambda folder: -folder.model.stat().st_mtime_ns)
    candidates = [_Candidate(folder, _validation_score(folder, fingerprint)) for folder in newest_first]
    scored = [candidate for candidate in candidates if candidate.score is not None]
    if best and not scored:
        raise InputError(
            f"no finished run of '{preset}' under '{runs_root}' has a validation score on this data, so none is the best",
            "give --teacher RUN, or leave --teacher out to take the newest",
        )
    taken = max(scored, key=lambda candidate: candidate.score or 0.0) if best else candidates[0]
    if len(candidates) == 1:
        return FoundTeacher(taken.run.model)
    others = ", ".join(str(candidate) for candidate in candidates if candidate is not taken)
    which = "best" if best else "newest"
    note = f"teacher chosen: {taken} mIoU_D in validation, the {which} of {len(candidates)} runs of '{preset}'"
    better = not best and any((candidate.score or 0.0) > (taken.score or 0.0) for candidate in scored)
    return FoundTeacher(taken.run.model, f"{note}; others: {others}" + ("; --teacher best takes the best" if better else ""))


def _validation_score(folder: RunFolder, fingerprint: str | None) -> float | None:
    """The validation mIoU_D, in percent, of the weights that a finished run ships; None if it is not known, or on other data."""
    try:
        trained_on, events = (folder.read_environment().get("dataset") or {}).get("fingerprint"), folder.read_log()
    except InputError:
        return None  # a damaged run is not a reason to refuse another one; if it is taken, loading it says what is wrong
    if fingerprint is not None and trained_on != fingerprint:
        return None
    shipped = next((event.get("weights_step") for event in reversed(events) if event["event"] == "end"), None)
    scores = [event["scores"].get("mIoU_D") for event in events if event["event"] == "validation" and event["step"] == shipped]
    return scores[-1] if scores else None


def is_hugging_face(path: Path) -> bool:
    """Whether `path` is a folder that the transformers library wrote."""
    return path.is_dir() and (path / "config.json").is_file() and not (path / "run.yaml").is_file()
