"""Where a run's teacher is: the file, folder or Hugging Face name of `--teacher`, or the newest run of the teacher's preset."""

from pathlib import Path

from segctl.commands import command_line
from segctl.errors import InputError
from segctl.models.external.huggingface import PREFIX
from segctl.runs import MODEL_FILE, RunFolder, newest_finished
from segctl.schema.run import DistillRun


def find_teacher(run: DistillRun, given: Path | None, runs_root: Path, data_root: Path | None = None) -> Path:
    """The weights of `--teacher` (a run folder, a file, or a Hugging Face model), else of the newest finished run of the
    teacher's preset under `runs_root`.

    data_root: for the command in the error message.  Raises InputError if there is no teacher.
    """
    if given is None:
        found = newest_finished(runs_root, run.teacher.preset)
        if found is None:
            line = command_line("train", "--preset", run.teacher.preset, data_root=data_root, runs_root=runs_root)
            raise InputError(
                f"there is no finished run of the teacher preset '{run.teacher.preset}' under '{runs_root}'",
                f"make one with `{line}`, or give --teacher RUN_OR_FILE",
            )
        return found.model
    if on_the_hub(given) or is_hugging_face(given):
        return given
    if given.is_dir():
        folder = RunFolder(given)
        if not folder.finished:
            raise InputError(
                f"--teacher '{given}' is not a finished run: it has no {MODEL_FILE}",
                f"finish it with `{folder.resume_line()}`, or give another" if folder.run_yaml.is_file() else "give another",
            )
        return folder.model
    if not given.is_file():
        raise InputError(f"--teacher '{given}' does not exist", f"give a run folder or a {MODEL_FILE}")
    return given


def on_the_hub(path: Path) -> bool:
    """Whether `path` is really a name such as hf:ORG/NAME."""
    return str(path).startswith(PREFIX)


def is_hugging_face(path: Path) -> bool:
    """Whether `path` is a folder that the transformers library wrote."""
    return path.is_dir() and (path / "config.json").is_file() and not (path / "run.yaml").is_file()
