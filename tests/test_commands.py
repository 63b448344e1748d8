"""Every command that segctl prints for a person to type next is taken from what it said and run, with roots of one's own."""

import os
import re
import resource
import shlex
import shutil
import signal
from pathlib import Path

import h5py
import pytest
from damage import flip_bit
from toy import STUDENT, write_preset

from segctl.cli import main
from segctl.commands import command_line
from segctl.train import loop

FEW = ["--limit", "8", "--workers", "0"]
"""Options of `data prepare` that make it quick."""


@pytest.mark.parametrize(
    ("variable", "root", "line"),
    [
        (None, None, "segctl data list"),
        (None, "data", "segctl data list"),
        (None, "my data", "segctl data list --data-root 'my data'"),
        ("elsewhere", "elsewhere", "segctl data list --data-root elsewhere"),
        ("elsewhere", "data", "segctl data list --data-root data"),
        ("", "data", "segctl data list"),
    ],
)
def test_a_root_is_carried_where_the_next_command_would_take_another(monkeypatch, variable, root, line):
    monkeypatch.delenv("SEGCTL_DATA", raising=False)
    if variable is not None:
        monkeypatch.setenv("SEGCTL_DATA", variable)
    assert command_line("data", "list", data_root=None if root is None else Path(root)) == line


class Person:
    """Types commands with a data root and a runs root that nothing would guess, and reads what is said."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.data, self.runs = folder / "my data", folder / "my runs"
        self.said = ""
        self.roots = ["--data-root", str(self.data), "--runs-root", str(self.runs)]

    def types(self, *arguments: object, code: int = 0) -> str:
        """All that the command said, which must end with that exit code."""
        got = main([str(argument) for argument in arguments])
        said = "".join(self.capsys.readouterr())
        assert got == code, said
        return said

    def types_what_was_said(self, said: str, *more: object, code: int = 0) -> str:
        """Run the one command in it, with further options."""
        (line,) = re.findall(r"`segctl ([^`]+)`|next: segctl (.+)$", said, re.M)
        return self.types(*shlex.split("".join(line)), *more, code=code)

    def writes_preset(self, **changes: dict[str, object]) -> Path:
        return write_preset(self.folder / "toy.yaml", **changes)


@pytest.fixture
def person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Person:
    monkeypatch.delenv("SEGCTL_DATA", raising=False)
    monkeypatch.delenv("SEGCTL_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    return Person(tmp_path, capsys)


@pytest.fixture
def equipped(person: Person, toy_data: Path) -> Person:
    """With the toy dataset in the data root."""
    shutil.copytree(toy_data, person.data)
    return person


@pytest.fixture
def trained(equipped: Person) -> Person:
    """With a finished run, `toy`, in the runs root."""
    equipped.writes_preset(train={"steps": 2, "validate_every": 2})
    equipped.types("train", "--preset", "toy.yaml", *equipped.roots)
    return equipped


def test_what_is_not_prepared_is_then_looked_at_and_repaired(person):
    said = person.types("data", "info", "shapes", "--data-root", person.data, code=2)
    said = person.types_what_was_said(said, *FEW)
    assert "Classes" in person.types_what_was_said(said)

    shard = next((person.data / "shapes").glob("*.h5"))
    with h5py.File(shard) as file:
        offsets = file["index/tiles"][:, 0].tolist()
    content = bytearray(shard.read_bytes())
    for offset in offsets:
        content[offset + 5] ^= 1
    shard.write_bytes(content)
    said = person.types("data", "info", "shapes", "--data-root", person.data, code=2)
    said = person.types_what_was_said(said, code=3)
    person.types_what_was_said(said[said.index("error: ") :], *FEW)
    assert "every sample is as it was packed" in person.types("data", "check", "shapes", "--data-root", person.data)


@pytest.mark.parametrize(("before", "after"), [('"format": 2', '"format": 1'), ('"counts"', '"count"')])
def test_an_index_that_cannot_be_read_is_made_again(person, before, after):
    person.types("data", "prepare", "shapes", "--data-root", person.data, *FEW)
    index = person.data / "shapes" / "dataset.json"
    index.write_text(index.read_text().replace(before, after))
    said = person.types("data", "info", "shapes", "--data-root", person.data, code=2)
    person.types_what_was_said(said, *FEW)
    assert "Classes" in person.types("data", "info", "shapes", "--data-root", person.data)


def test_a_run_is_scored_and_reported(equipped):
    preset = equipped.writes_preset(train={"steps": 2, "validate_every": 2})
    said = equipped.types("train", "--preset", preset, *equipped.roots)
    said = equipped.types_what_was_said(said)
    assert "report.md" in equipped.types_what_was_said(said)


def test_a_report_says_how_to_score_what_has_no_scores(trained):
    trained.types("report", "--runs-root", trained.runs)
    said = next(line for line in Path("report.md").read_text().splitlines() if "is not evaluated" in line)
    assert "in percent" in trained.types_what_was_said(said)


@pytest.mark.slow
def test_a_report_on_another_split_says_how_to_score_the_rest_on_it(trained):
    trained.types("train", "--preset", "toy.yaml", *trained.roots)
    trained.types("eval", trained.runs / "toy", "--split", "train", "--data-root", trained.data)
    trained.types("report", "--runs-root", trained.runs, "--split", "train")
    said = next(line for line in Path("report.md").read_text().splitlines() if "is not evaluated" in line)
    assert "camvid train" in trained.types_what_was_said(said)


def test_a_report_on_a_run_that_is_not_there_names_the_one_on_all(trained):
    said = trained.types("report", "nowhere", "--runs-root", trained.runs, code=2)
    trained.types_what_was_said(said)


def test_a_report_without_runs_names_the_command_that_makes_one(equipped):
    said = equipped.types("report", "--runs-root", equipped.runs, code=2)
    preset = equipped.writes_preset(train={"steps": 2, "validate_every": 2})
    equipped.types_what_was_said(said.replace("NAME", shlex.quote(str(preset))), "--data-root", equipped.data)
    equipped.types("report", "--runs-root", equipped.runs)


@pytest.mark.slow
def test_a_missing_teacher_is_trained_where_it_is_then_looked_for(person):
    person.types("data", "prepare", "shapes", "--data-root", person.data, *FEW)
    all_labels = ["--set", "data.labelled=1", "--set", "data.unlabelled=null"]  # an eighth of so few is less than a batch
    distill = ["distill", "--preset", "shapes-student", "--steps", 1, *all_labels, *person.roots]
    said = person.types(*distill, code=2)
    person.types_what_was_said(said, "--steps", 1)
    assert (person.runs / "shapes-teacher" / "model.safetensors").is_file()
    assert "no finished run of the teacher preset" not in person.types(*distill, code=2)  # one step taught it nothing


def test_a_preset_without_a_teacher_is_trained(equipped):
    preset = equipped.writes_preset(train={"steps": 2, "validate_every": 2})
    said = equipped.types("distill", "--preset", preset, *equipped.roots, code=2)
    assert "run saved in" in equipped.types_what_was_said(said)
    assert (equipped.runs / "toy" / "model.safetensors").is_file()


@pytest.fixture
def stopped(equipped: Person, monkeypatch: pytest.MonkeyPatch) -> Person:
    """With a run, `toy`, that was stopped after two of its four steps; what was said of it is in `said`."""
    take_step, taken = loop.take_step, []

    def step_and_stop(*given, **named):
        taken.append(None)
        if len(taken) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return take_step(*given, **named)

    preset = equipped.writes_preset(train={"steps": 4, "validate_every": 4})
    with monkeypatch.context() as patch:
        patch.setattr(loop, "take_step", step_and_stop)
        equipped.said = equipped.types("train", "--preset", preset, *equipped.roots, code=143)
    return equipped


def test_a_stopped_run_goes_on(stopped):
    assert "--runs-root" in stopped.said
    stopped.types_what_was_said(stopped.said)
    assert (stopped.runs / "toy" / "model.safetensors").is_file()


def test_a_run_that_has_not_finished_is_finished_before_it_is_scored(stopped):
    scoring = ["eval", stopped.runs / "toy", "--data-root", stopped.data]
    stopped.types_what_was_said(stopped.types(*scoring, code=2))
    stopped.types(*scoring)


def test_a_run_goes_on_under_its_own_settings(stopped):
    going_on = ["train", "--resume", "--run", stopped.runs / "toy", *stopped.roots]
    said = stopped.types(*going_on, "--seed", 7, code=2)
    stopped.types_what_was_said(said)
    said = stopped.types(*going_on, "--extend-to", 6, "--seed", 7, code=2)
    stopped.types_what_was_said(said)


def test_a_teacher_that_has_not_finished_is_finished(stopped):
    student = write_preset(stopped.folder / "student.yaml", STUDENT)
    distill = ["distill", "--preset", student, "--teacher", stopped.runs / "toy", *stopped.roots]
    stopped.types_what_was_said(stopped.types(*distill, code=2))
    assert (stopped.runs / "toy" / "model.safetensors").is_file()


def test_a_comparison_names_the_report_on_its_runs(equipped):
    student = ["--preset", write_preset(equipped.folder / "student.yaml", STUDENT, train={"steps": 2, "validate_every": 2})]
    run = equipped.runs / "toy-student-none-seed0"
    equipped.types("distill", *student, "--method", "none", "--run", run, *equipped.roots)
    said = equipped.types("compare", *student, "--methods", "none", "--seeds", 1, *equipped.roots)
    assert "report.md" in equipped.types_what_was_said(said)


def test_a_damaged_checkpoint_is_deleted_and_the_run_starts_again(stopped):
    last = stopped.runs / "toy" / "last.pt"
    flip_bit(last)
    resume = ["train", "--resume", "--run", stopped.runs / "toy", *stopped.roots]
    assert "delete that file and resume" in stopped.types(*resume, code=2)
    last.unlink()
    stopped.types(*resume)


@pytest.mark.slow
def test_damaged_best_weights_are_deleted_and_the_last_ones_are_shipped(equipped):
    preset = equipped.writes_preset(train={"steps": 2, "validate_every": 2, "select": "best"})
    equipped.types("train", "--preset", preset, *equipped.roots)
    run = equipped.runs / "toy"
    (run / "model.safetensors").unlink()
    flip_bit(run / "best.pt")
    said = equipped.types("train", "--resume", "--run", run, *equipped.roots, code=1)
    (run / "best.pt").unlink()
    equipped.types_what_was_said(said[said.index("error: ") :])
    assert (run / "model.safetensors").is_file()


def test_an_edited_run_resumes_once_its_settings_are_put_back(stopped):
    path = stopped.runs / "toy" / "run.yaml"
    text = path.read_text()
    path.write_text(text.replace("lr: 0.05", "lr: 0.5"))
    resume = ["train", "--resume", "--run", stopped.runs / "toy", *stopped.roots]
    said = stopped.types(*resume, code=2)
    assert "optim.lr: 0.05 -> 0.5" in said
    assert "put the first value of each back" in said
    path.write_text(text)
    stopped.types(*resume)


def test_a_damaged_model_is_trained_again(trained):
    run = trained.runs / "toy"
    flip_bit(run / "model.safetensors")
    scoring = ["eval", run, "--data-root", trained.data]
    assert "train the run again" in trained.types(*scoring, code=2)
    (run / "model.safetensors").unlink()
    trained.types_what_was_said(trained.types(*scoring, code=2))
    trained.types(*scoring)


def test_a_run_whose_disk_was_full_resumes_as_it_says(equipped, monkeypatch):
    preset = equipped.writes_preset(train={"steps": 4, "validate_every": 4, "checkpoint_every": 2})
    take_step = loop.take_step

    def fill_the_disk(*given, **named):
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
        return take_step(*given, **named)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with monkeypatch.context() as patch:
            patch.setattr(loop, "take_step", fill_the_disk)
            said = equipped.types("train", "--preset", preset, *equipped.roots, code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot write" in said
    equipped.types_what_was_said(said[said.index("error: ") :])
    assert (equipped.runs / "toy" / "model.safetensors").is_file()
