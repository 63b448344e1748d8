"""`--profile` tells where a step's time goes, and leaves everything else as it was."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from toy import PRESET, STUDENT, Silent, toy_run, write_preset

from segctl.cli import main
from segctl.errors import InputError
from segctl.files import read_json
from segctl.runs import RunFolder
from segctl.train.resume import resume_run
from segctl.train.session import Request
from segctl.train.start import start_run

STEPS = {"train": {"steps": 9, "accumulate": 2, "ema": 0.9, "validate_every": 4, "checkpoint_every": 3}}


@pytest.fixture(scope="module")
def profiled(toy_data: Path, toy_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunFolder, Silent]:
    """A distillation with a profile, and what it said."""
    place, watch = tmp_path_factory.mktemp("profiled"), Silent()
    run = toy_run(STUDENT, **STEPS, data={"workers": 1})
    start_run(Request(run, toy_data, place, teacher=toy_teacher, device="cpu", profile=True), RunFolder(place / "looked"), watch)
    return RunFolder(place / "looked"), watch


@pytest.mark.slow
def test_a_profiled_run_computes_the_same_bits(
    profiled: tuple[RunFolder, Silent], toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    plain, looked = RunFolder(tmp_path / "plain"), profiled[0]
    start_run(Request(looked.read_run(), toy_data, tmp_path, teacher=toy_teacher, device="cpu"), plain, Silent())
    one, other = (torch.load(run.last, weights_only=True) for run in (plain, looked))
    for name, value in one["task"].items():
        assert torch.equal(value, other["task"][name]), name
    assert torch.equal(one["rng"][0]["cpu"], other["rng"][0]["cpu"])
    logs = [
        [(event["step"], event["loss"], event["gradient_norm"]) for event in run.read_log() if event["event"] == "step"]
        for run in (plain, looked)
    ]
    assert logs[0] == logs[1]


@pytest.mark.slow
def test_the_parts_add_up_to_the_step_and_none_is_missing(profiled: tuple[RunFolder, Silent]) -> None:
    found = read_json(profiled[0].profile)
    assert list(found["phases"]) == ["data", "copy", "teacher", "student", "loss", "backward", "optimiser", "other"]
    assert sum(phase["seconds"] for phase in found["phases"].values()) == pytest.approx(found["step_s"])
    assert sum(phase["share"] for phase in found["phases"].values()) == pytest.approx(1.0)
    assert found["window"] == {"warmup": 3, "timed": 3, "traced": 3}
    # A validation, a checkpoint and the start of torch's profiler lie between these steps and are not part of them.
    assert found["fastest_step_s"] <= found["step_s"] <= found["slowest_step_s"]
    assert found["phases"]["backward"]["peak_mb"] > 0
    assert found["feeding"]["made_s"] > 0


@pytest.mark.slow
def test_the_trace_has_the_traced_steps_phases_from_both_micro_batches(profiled: tuple[RunFolder, Silent]) -> None:
    events = json.loads(gzip.decompress(profiled[0].trace.read_bytes()))["traceEvents"]
    marks = [event["name"] for event in events if event.get("cat") == "user_annotation"]
    for name, count in (("data", 3), ("optimiser", 3), ("student", 6), ("teacher", 6), ("backward", 6)):
        assert marks.count(name) == count, name


@pytest.mark.slow
def test_the_table_is_shown_and_the_sentence_is_in_the_log(profiled: tuple[RunFolder, Silent]) -> None:
    looked, watch = profiled
    [(title, rows, notes)] = watch.tables
    assert title == "Where a step's time goes: cpu, fp32, batch 4"
    assert rows[-1][0] == "step"
    assert notes[0].startswith("times: 3 steps after 3 to warm up")
    sentence = read_json(looked.profile)["advice"]
    assert f"profile: {sentence}" in watch.notes
    assert sentence in looked.profile.with_suffix(".md").read_text(encoding="utf-8")
    assert f"profile saved in '{looked.path / 'profile.md'}'" in looked.train_log.read_text(encoding="utf-8")


def test_a_run_of_two_steps_is_refused_before_anything_is_written(toy_data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--profile needs at least 3 steps"):
        start_run(Request(toy_run(train={"steps": 2}), toy_data, tmp_path, profile=True), RunFolder(tmp_path / "run"), Silent())
    assert not (tmp_path / "run").exists()


class Stopping(Silent):
    """Ends the run after a step, as a bug or a full disk would."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def stepped(self, report: object, steps: int) -> None:
        if getattr(report, "step", 0) == self.step:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize(
    "step", [8, pytest.param(11, marks=pytest.mark.slow)]
)  # while steps are timed, and while they are traced
def test_a_run_that_ends_early_says_that_there_is_no_profile(step: int, toy_data: Path, tmp_path: Path) -> None:
    watch, folder = Stopping(step), RunFolder(tmp_path / "run")
    request = Request(toy_run(train={"steps": 12, "checkpoint_every": 1}), toy_data, tmp_path, profile=True)
    with pytest.raises(KeyboardInterrupt):
        start_run(request, folder, watch)
    assert watch.notes[-1] == f"no profile: it needs 12 steps, and the run ended after {step - 1}"
    assert not folder.profile.exists()

    again = Silent()
    resume_run(request, folder, again)  # goes on, with a profile of what is left or without one
    assert folder.finished
    assert folder.profile.exists() is (step == 8)
    too_few = "no profile: --profile needs at least 3 steps (one to warm up, one to time, one to trace), and 2 are left"
    assert (too_few in again.notes) is (step == 11)


@pytest.mark.slow
def test_the_main_of_two_processes_tells(toy_data: Path, tmp_path: Path) -> None:
    preset = write_preset(tmp_path / "toy.yaml", PRESET, train={"steps": 4})
    line = [sys.executable, "-m", "segctl", "train", "--preset", str(preset), "--run", str(tmp_path / "run")]
    done = subprocess.run([*line, "--data-root", str(toy_data), "--processes", "2", "--profile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Where a step's time goes: cpu, fp32, batch 4 over 2 processes") == 1
    assert "waiting for other processes" in done.stdout
    assert "[W" not in done.stderr
    assert "peers" in read_json(tmp_path / "run" / "profile.json")["phases"]


def test_the_command_line_prints_the_table(toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    preset = write_preset(tmp_path / "toy.yaml", train={"steps": 3})
    line = ["train", "--preset", str(preset), "--run", str(tmp_path / "run"), "--data-root", str(toy_data), "--profile"]
    assert main(line) == 0
    said = capsys.readouterr()
    assert "student forward" in said.out
    assert "profile: " in said.err
