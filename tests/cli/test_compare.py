"""`segctl compare` through the front door: the runs, the table, running it again, and refusals."""

import json
from pathlib import Path

import pytest
from toy import STUDENT, Silent, write_preset

from segctl.cli import main
from segctl.schema.load import load_preset
from segctl.schema.run import DistillRun
from segctl.train.compare import plan_jobs
from segctl.train.session import Request
from segctl.train.start import start_run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, toy_data: Path) -> Path:
    monkeypatch.setenv("SEGCTL_DATA", str(toy_data))
    monkeypatch.setenv("SEGCTL_RUNS", str(tmp_path / "runs"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_what_is_missing_is_run_and_the_table_shown_and_again_without_running(
    here: Path, toy_data: Path, toy_teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    student = write_preset(here / "student.yaml", STUDENT, train={"steps": 1, "validate_every": 1})
    run = load_preset(str(student))
    assert isinstance(run, DistillRun)
    (none,) = plan_jobs(run, ["none"], 1, here / "runs")
    start_run(Request(none.run, toy_data, here, device="cpu"), none.folder, Silent())
    command = ["compare", "--preset", str(student), "--methods", "none,kd", "--seeds", "1", "--teacher", str(toy_teacher)]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "toy-student on camvid / val, 1 steps, in percent" in shown
    assert [line.split()[:2] for line in shown.splitlines() if line.startswith(("none", "kd"))] == [["none", "1"], ["kd", "1"]]
    runs = [here / "runs" / f"toy-student-{method}-seed0" for method in ("none", "kd")]
    before = [(run / "model.safetensors").stat().st_mtime_ns for run in runs]
    assert main([*command, "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert [(row["method"], len(row["runs"])) for row in again] == [("none", 1), ("kd", 1)]
    assert again[1]["minus_none"]["n"] == 1
    assert again[1]["peak_memory_mb"][0] > 0
    assert [(run / "model.safetensors").stat().st_mtime_ns for run in runs] == before
    # An exported file that was scored stands beside its run.
    assert main(["export", str(runs[0]), "--format", "torchscript"]) == 0
    file = runs[0] / "export" / "model.torchscript.pt"
    assert main(["eval", str(runs[0]), "--model", str(file), "--trust-program"]) == 0
    capsys.readouterr()
    assert main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "none (toy-student-none-seed0 as model.torchscript.pt) 1" in shown
    assert main([*command, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["method"], row["file"]) for row in rows] == [("none", None), ("none", file.name), ("kd", None)]
    assert rows[0]["scores"]["mIoU_D"]["mean"] == pytest.approx(rows[1]["scores"]["mIoU_D"]["mean"], abs=0.1)
    assert rows[2]["minus_none"] == again[1]["minus_none"]


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ("none,cwdd", "--methods: 'cwdd' is not known, did you mean 'cwd'?"),
        ("none,none", "--methods: got 'none,none', wanted one or more methods, each of them once"),
        (",", "--methods: got ',', wanted one or more methods, each of them once"),
    ],
)
def test_methods_are_checked_first(methods: str, message: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    student = write_preset(here / "student.yaml", STUDENT)
    assert main(["compare", "--preset", str(student), "--methods", methods]) == 2
    assert message in capsys.readouterr().err
    assert not (here / "runs").exists()


def test_a_teachers_preset_has_nothing_to_compare(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--preset", "camvid-dl101", "--methods", "none,kd"]) == 2
    assert "'camvid-dl101' has no teacher to learn from" in capsys.readouterr().err
