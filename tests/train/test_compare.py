"""Which runs a comparison means, what it refuses, and how it takes them to their ends."""

import os
import signal
from pathlib import Path

import pytest
import torch
from toy import STUDENT, Silent, toy_run

from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError, SegctlError, StoppedError
from segctl.models import load, save
from segctl.runs import RunFolder
from segctl.schema.load import with_method
from segctl.schema.run import DistillRun
from segctl.schema.terms.methods import Method
from segctl.teacher.ensemble import open_teacher
from segctl.teacher.load import Teacher
from segctl.train.build import require_methods
from segctl.train.compare import ComparisonRequest, Job, plan_jobs, require_fitting, run_jobs
from segctl.train.session import Request
from segctl.train.start import start_run


def student(**train: int) -> DistillRun:
    run = toy_run(STUDENT, train={"steps": 1, "validate_every": 1} | train)
    assert isinstance(run, DistillRun)
    return run


def test_jobs_come_seed_by_seed_in_folders_of_their_own(tmp_path: Path) -> None:
    jobs = plan_jobs(student(seed=5), ["none", "kd"], 2, tmp_path)
    assert [job.folder.name for job in jobs] == [
        "toy-student-none-seed5", "toy-student-kd-seed5", "toy-student-none-seed6", "toy-student-kd-seed6",
    ]  # fmt: skip
    assert [job.run.train.seed for job in jobs] == [5, 5, 6, 6]
    assert [isinstance(job.run, DistillRun) for job in jobs] == [False, True, False, True]


def test_a_job_is_the_command_one_would_type(tmp_path: Path, toy_teacher: Path) -> None:
    none, kd = plan_jobs(student(), ["none", "kd"], 1, tmp_path)
    request = ComparisonRequest("student.yaml", ("train.steps=1",), None, Path("data"), tmp_path)
    teacher = Teacher(load(toy_teacher), toy_teacher / "model.safetensors", "toy", "abc")
    common = ["--set", "train.steps=1", "--set", "train.seed=0"]
    roots = ["--data-root", "data", "--runs-root", str(tmp_path)]
    start = ["distill", "--preset", "student.yaml", "--method"]
    assert none.command(request, teacher, None) == [*start, "none", "--run", str(none.folder.path), *common, *roots]
    given = ["--teacher", str((toy_teacher / "model.safetensors").resolve())]
    assert kd.command(request, teacher, "cpu") == [
        *start,
        "kd",
        "--run",
        str(kd.folder.path),
        *common,
        *given,
        *roots,
        "--device",
        "cpu",
    ]
    kd.folder.path.mkdir()
    assert kd.command(request, teacher, None)[-1] == "--resume"


def test_a_folder_of_other_settings_or_another_teacher_is_refused(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    (job,) = plan_jobs(student(), ["kd"], 1, tmp_path)
    start_run(Request(job.run, toy_data, tmp_path, teacher=toy_teacher, device="cpu"), job.folder, Silent())
    teacher = Teacher(load(toy_teacher), toy_teacher, "toy", job.folder.read_environment()["teacher"]["sha256"])
    require_fitting(job, teacher)
    with pytest.raises(InputError) as error:
        require_fitting(plan_jobs(student(batch_size=2), ["kd"], 1, tmp_path)[0], teacher)
    assert error.value.message == f"'{job.folder.path}' was run with other settings: train.batch_size: 4 -> 2"
    with pytest.raises(InputError, match="was trained with another teacher"):
        require_fitting(job, Teacher(teacher.model, teacher.path, "toy", "another"))
    notes: list[str] = []
    run_jobs([job], lambda job, device: ["--no-such-command"], [None], notes.append)
    assert notes == ["toy-student-kd-seed0: finished already"]


def test_a_method_that_would_be_refused_is_refused_before_another_one_trains(
    toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    run, dataset = student(), open_dataset(toy_data, "camvid")
    other = load(toy_teacher)
    with torch.no_grad():
        other.classifier.weight.mul_(2)
    save(tmp_path / "other.pt", other, toy_run(), dataset.classes.names)

    def check(given: list[Path], *methods: Method) -> None:
        teacher = open_teacher(run, given, dataset, tmp_path)
        require_methods({method: with_method(run, method) for method in methods}, dataset, teacher)

    check([toy_teacher], "none", "kd", "mgd", "cirkdv2", "dkd", "jml")
    check([toy_teacher, tmp_path / "other.pt"], "none", "kd", "dkd", "lskd", "jml")
    with pytest.raises(InputError) as error:
        check([toy_teacher, tmp_path / "other.pt"], "none", "kd", "mgd")
    assert error.value.message == (
        "--methods: mgd: distiller.terms.0 ('mgd') compares features, and 2 of the 2 teachers give features, wanted exactly one"
    )


def job(tmp_path: Path, name: str) -> Job:
    return Job("none", student(), RunFolder(tmp_path / name))


@pytest.mark.slow
def test_a_failed_run_does_not_keep_the_others_from_running(tmp_path: Path) -> None:
    jobs, notes, ended = [job(tmp_path, "a"), job(tmp_path, "b")], [], []  # type: ignore[var-annotated]
    commands = {"a": ["presets", "check", "nothing.yaml"], "b": ["--version"]}
    with pytest.raises(SegctlError) as error:
        run_jobs(jobs, lambda each, device: commands[each.folder.name], ["cpu", "cpu"], notes.append, ended.append)
    assert ended == [jobs[1]]
    assert error.value.message == "1 of 2 runs failed, the first with exit code 2"
    assert sorted(notes) == ["a: starting", "b: starting"]


def test_a_signal_reaches_the_run_under_way_and_begins_no_other(tmp_path: Path) -> None:
    jobs, notes = [job(tmp_path, "a"), job(tmp_path, "b")], []  # type: ignore[var-annotated]

    def command(each: Job, device: str | None) -> list[str]:
        os.kill(os.getpid(), signal.SIGTERM)
        return ["--help"]

    with pytest.raises(StoppedError) as error:
        run_jobs(jobs, command, [None], notes.append)
    assert error.value.exit_code == 143
    assert error.value.hint == "run the same command again to resume"
    assert notes == ["a: starting"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
