"""`train`, `distill`, `eval` and `report`, one after another, through the front door."""

import json
import re
import signal
from pathlib import Path

import pytest
from toy import PRESET, STUDENT, write_preset

from segctl.cli import main


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_data: Path) -> Path:
    monkeypatch.setenv("SEGCTL_DATA", str(toy_data))
    monkeypatch.setenv("SEGCTL_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_images_to_report(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    teacher = write_preset(here / "toy.yaml", train={"steps": 60, "batch_size": 8, "validate_every": 60, "checkpoint_every": 60})
    student = write_preset(here / "student.yaml", STUDENT, train={"steps": 3})
    assert main(["train", "--preset", str(teacher)]) == 0
    for method in ("none", "kd", "jml"):
        assert main(["distill", "--preset", str(student), "--method", method]) == 0
    said = capsys.readouterr()
    assert re.search(r"teacher scores [\d.]+ mIoU_D on 5 validation images \(always '\w+': [\d.]+\)", said.err)
    assert "run saved in runs/toy-student-jml      next: segctl eval runs/toy-student-jml" in said.out.replace(
        str(here) + "/", ""
    )

    runs = [here / "runs" / name for name in ("toy", "toy-student-none", "toy-student-kd", "toy-student-jml")]
    for run in runs:
        assert main(["eval", str(run)]) == 0
    shown = capsys.readouterr().out
    assert "camvid val, 5 images, whole image, single scale, no flip, in percent" in shown
    files = {path.name for path in (runs[0] / "eval" / "val").iterdir()}
    assert files == {"scores.json", "per_image.csv", "per_class.csv", "counts.npz", "confusion.npz", "worst"}

    assert main(["report", "-o", str(here / "report.md")]) == 0
    report = (here / "report.md").read_text(encoding="utf-8")
    assert "toy-student-jml" in report
    assert "mIoU_D" in report


@pytest.mark.slow
def test_eval_as_json_and_with_two_processes_gives_the_same_integers(
    here: Path, toy_teacher: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(toy_teacher), "--json"]) == 0
    alone = json.loads(capfd.readouterr().out)
    folder = toy_teacher / "eval" / "val"
    counts, confusion = (folder / "counts.npz").read_bytes(), (folder / "confusion.npz").read_bytes()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    assert main(["eval", str(toy_teacher), "--json", "--processes", "2", "--min", "mIoU_D=99.9"]) == 3
    assert {number: signal.getsignal(number) for number in handlers} == handlers
    shared, said = capfd.readouterr()
    assert "error: mIoU_D is " in said
    assert json.loads(shared[shared.index("{") :]) == alone
    assert (folder / "counts.npz").read_bytes() == counts
    assert (folder / "confusion.npz").read_bytes() == confusion


def test_train_on_a_students_preset_leaves_the_teacher_out_and_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = write_preset(here / "student.yaml", STUDENT, train={"steps": 1})
    assert main(["train", "--preset", str(student)]) == 0
    assert "'toy-student' is a student's preset: its distiller and teacher are left out" in capsys.readouterr().err
    assert (here / "runs" / "toy-student-none" / "model.safetensors").is_file()


def test_a_second_run_gets_a_numbered_sibling(here: Path) -> None:
    preset = write_preset(here / "toy.yaml", train={"steps": 1})
    assert main(["train", "--preset", str(preset)]) == 0
    assert main(["train", "--preset", str(preset)]) == 0
    assert sorted(path.name for path in (here / "runs").iterdir()) == ["toy", "toy-2"]


def test_an_explicit_run_that_exists_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = write_preset(here / "toy.yaml", train={"steps": 1})
    (here / "mine").mkdir()
    assert main(["train", "--preset", str(preset), "--run", "mine"]) == 2
    assert "error: the run folder 'mine' exists" in capsys.readouterr().err


def test_nothing_to_resume_is_a_sentence(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = write_preset(here / "toy.yaml")
    assert main(["train", "--preset", str(preset), "--resume"]) == 2
    assert "error: there is no unfinished run of 'toy' under" in capsys.readouterr().err


def test_a_dry_run_prints_what_it_measured(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = write_preset(here / "toy.yaml")
    assert main(["train", "--preset", str(preset), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "Dry run: nothing was kept" in shown
    assert "peak_memory_mb" in shown
    assert not (here / "runs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dry-run", "--run", "mine"],
         "--dry-run keeps nothing, so it cannot be combined with --run, --resume, --extend-to, --track or --tensorboard"),
        (["--dry-run", "--tensorboard"],
         "--dry-run keeps nothing, so it cannot be combined with --run, --resume, --extend-to, --track or --tensorboard"),
        (["--method", "none", "--teacher", "nowhere"], "--teacher cannot be combined with --method none"),
        (["--method", "jml", "--set", "model.aux=false"], "loss.1.logits: got 'aux', wanted 'main', because model.aux is false"),
        (["--set", "distiller.terms=[{kind: kd, weight: 0}]"], "distiller.terms: every weight is 0"),
    ],
)  # fmt: skip
def test_options_that_contradict_each_other_are_refused(
    options: list[str], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = write_preset(here / "student.yaml", STUDENT)
    assert main(["distill", "--preset", str(student), *options]) == 2
    assert message in capsys.readouterr().err
    assert not (here / "runs").exists()


def test_distilling_by_a_method_of_another_recipe_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    number = {"method": "kd", "value": 70.0, "source": "a paper", "recipe": "cirkd"}
    student = write_preset(here / "student.yaml", STUDENT | {"published": [number]}, train={"steps": 1})
    main(["distill", "--preset", str(student), "--method", "kd"])
    assert "published for kd: 70.00 mIoU_D, with the cirkd recipe, not this one (scratch)" in capsys.readouterr().err


def test_the_toy_is_not_a_shipped_preset() -> None:
    assert PRESET["name"] == "toy"


def test_a_method_published_under_another_recipe_names_the_preset_that_has_it(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["distill", "--preset", "voc-psp18", "--method", "cirkd"])
    said = capsys.readouterr().err
    assert "published for cirkd: 74.78 mIoU_D, with the cirkd recipe, not this one (jml); preset 'voc-psp18-cirkd' has it" in said
    assert "on voc, cirkd was published with memory weights 0.01; elsewhere they are 0.1" in said


def test_a_method_that_pairs_images_is_refused_for_one_image_at_a_time(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = write_preset(here / "student.yaml", STUDENT, train={"batch_size": 4, "accumulate": 4})
    assert main(["distill", "--preset", str(student), "--method", "dist"]) == 2
    assert (
        "distiller.terms.0: 'dist' compares images with each other, got one image at a time (train.batch_size 4, "
        "train.accumulate 4), wanted at least two" in capsys.readouterr().err
    )


def test_a_teachers_preset_without_a_teacher_is_refused(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = write_preset(here / "student.yaml", STUDENT)
    assert main(["distill", "--preset", str(student), "--teacher-preset", "camvid-dl101"]) == 2
    assert "--teacher-preset needs --teacher FILE, whose network it describes" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["train"], ["distill", "--method", "none"]])
def test_a_run_is_judged_without_the_parts_that_the_command_leaves_out(
    command: list[str], here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = write_preset(here / "student.yaml", STUDENT)
    changes = ["--set", "model.aux=false", "--set", "loss=[{kind: cross_entropy}]", "--dry-run"]
    assert main([*command, "--preset", str(student), *changes]) == 0
    assert main(["distill", "--preset", str(student), *changes]) == 2
    assert "distiller.terms.1.logits: got 'aux', wanted 'main', because model.aux is false" in capsys.readouterr().err


@pytest.mark.slow
def test_a_network_with_weights_that_no_head_reads_trains_in_two_processes(here: Path) -> None:
    preset = write_preset(here / "toy.yaml", train={"steps": 3, "batch_size": 4, "validate_every": 3, "checkpoint_every": 3})
    network = ["--set", "model.backbone=hrnet_w18_small", "--set", "model.output_stride=32", "--processes", "2"]
    assert main(["train", "--preset", str(preset), *network, "--dry-run"]) == 0
    assert main(["train", "--preset", str(preset), *network]) == 0
