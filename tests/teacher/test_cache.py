"""A student trained from the teacher cache ends with the weights of one whose teacher runs in every step."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from toy import STUDENT, Silent, toy_run

from segctl.errors import InputError, PresetError, SegctlError, StoppedError
from segctl.runs import RunFolder
from segctl.runtime.world import World
from segctl.schema.run import TrainRun
from segctl.teacher import cache as teacher_cache
from segctl.train.build import build_session
from segctl.train.dry_run import dry_run
from segctl.train.resume import resume_run
from segctl.train.session import Request
from segctl.train.start import start_run
from tests.slow_cases import slow_after

VIEW = {"crop": [48, 64], "scale": [1, 1]}
TERMS = [
    {"kind": "kd"},
    {"kind": "maskd", "tokens": 3, "stage": {"steps": 3}},
    {"kind": "soft_kl", "logits": "aux"},
    {"kind": "skd"},
]
"""Terms that read every map, one of them with a stage."""


def student(cache: bool = True, terms: list[dict[str, Any]] = TERMS, data: dict[str, Any] = VIEW, **train: Any) -> TrainRun:
    settings = {"steps": 6, "checkpoint_every": 2, "validate_every": 6} | train
    tree = STUDENT | {"distiller": {"terms": terms}}
    return toy_run(tree, teacher={"preset": "toy", "cache": cache}, data=data, train=settings)


def train(run: TrainRun, data: Path, teacher: Path, folder: Path, watch: Silent | None = None) -> RunFolder:
    start_run(Request(run, data, folder.parent, teacher=teacher, device="cpu"), RunFolder(folder), watch or Silent())
    return RunFolder(folder)


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder.last, weights_only=True)["task"]
    return found


def assert_same(one: RunFolder, other: RunFolder) -> None:
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="float32", marks=pytest.mark.slow),
        pytest.param({"batch_size": 6, "accumulate": 2}, id="micro-batches of 3"),
        pytest.param({"precision": "bf16"}, id="bf16", marks=pytest.mark.slow),
    ],
)
def test_the_weights_are_those_of_a_run_without_it(
    settings: dict[str, Any], toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    without = train(student(False, **settings), toy_data, toy_teacher, tmp_path / "without" / "run")
    kept = train(student(True, **settings), toy_data, toy_teacher, tmp_path / "kept" / "run")
    assert_same(kept, without)


@pytest.fixture(scope="module")
def undisturbed(toy_data: Path, toy_teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return train(student(), toy_data, toy_teacher, tmp_path_factory.mktemp("kept") / "run")


def test_another_seed_and_method_finds_what_is_there_and_adds_what_it_lacks(
    toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    train(student(terms=[{"kind": "kd"}], steps=1), toy_data, toy_teacher, tmp_path / "first")
    (folder,) = (tmp_path / ".answers").iterdir()
    times = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert sorted(times) == ["main-mirrored-00000.rows", "main-plain-00000.rows"]
    watch = Silent()
    train(student(terms=[{"kind": "cwd"}], steps=1, seed=5), toy_data, toy_teacher, tmp_path / "second", watch)
    assert any(note.startswith("teacher cache main   10 images, plain and mirrored") for note in watch.notes)
    assert any(note.endswith("complete") for note in watch.notes)
    train(student(terms=[{"kind": "dist", "logits": "aux"}], steps=1), toy_data, toy_teacher, tmp_path / "third")
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert {name: after[name] for name in times} == times
    assert sorted(after.keys() - times.keys()) == ["aux-mirrored-00000.rows", "aux-plain-00000.rows"]


def test_a_complete_cache_is_not_filled_again(toy_data: Path, toy_teacher: Path, undisturbed: RunFolder, tmp_path: Path) -> None:
    shutil.copytree(undisturbed.path.parent / ".answers", tmp_path / ".answers")
    request = Request(student(), toy_data, tmp_path, teacher=toy_teacher, device="cpu")
    filled: list[int] = []

    class Counting(Silent):
        def advance(self, label: str, done: int, total: int) -> None:
            filled.extend([done] if label == "filling the teacher cache" else [])

    start_run(request, RunFolder(tmp_path / "run"), Counting())
    assert filled == []
    assert_same(RunFolder(tmp_path / "run"), undisturbed)


class Interrupting(Silent):
    """A watcher that falls over when something has gone so far."""

    def __init__(self, label: str, at: int) -> None:
        super().__init__()
        self.label, self.at = label, at

    def stepped(self, report: object, steps: int) -> None:
        if self.label == "step" and report.step >= self.at:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    def advance(self, label: str, done: int, total: int) -> None:
        if label == self.label and done >= self.at:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("where", [("filling the teacher cache", 1), ("step", 3)], ids=["while filling", "in step 3"])
def test_a_killed_run_goes_on_to_the_same_weights(
    where: tuple[str, int], toy_data: Path, toy_teacher: Path, undisturbed: RunFolder, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(student(), toy_data, toy_teacher, tmp_path / "run", Interrupting(*where))
    (folder,) = (tmp_path / ".answers").iterdir()
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(before) == (3 if where[0] != "step" else 6)
    request = Request(student(), toy_data, tmp_path, teacher=toy_teacher, device="cpu")
    resume_run(request, RunFolder(tmp_path / "run"), Silent())
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name in before} == before
    assert_same(RunFolder(tmp_path / "run"), undisturbed)


@pytest.mark.slow
def test_a_run_goes_on_with_and_without_it(toy_data: Path, toy_teacher: Path, undisturbed: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(student(False), toy_data, toy_teacher, tmp_path / "run", Interrupting("step", 3))
    resume_run(Request(student(), toy_data, tmp_path, teacher=toy_teacher, device="cpu"), RunFolder(tmp_path / "run"), Silent())
    assert (tmp_path / ".answers").is_dir()
    assert_same(RunFolder(tmp_path / "run"), undisturbed)


def test_a_polite_signal_keeps_whole_files_and_says_how_to_go_on(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    class Signalling(Silent):
        def advance(self, label: str, done: int, total: int) -> None:
            if label == "filling the teacher cache":
                os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError) as stopped:
        train(student(), toy_data, toy_teacher, tmp_path / "run", Signalling())
    assert stopped.value.exit_code == 143
    assert stopped.value.message == "stopped by SIGTERM after 1 of 2 files of the teacher cache; they are kept"
    assert stopped.value.hint.startswith(f"resume with `segctl distill --resume --run {tmp_path / 'run'} ")


@pytest.mark.parametrize("workers", slow_after([0, 1]))
def test_a_damaged_file_ends_the_run_and_is_computed_again(
    workers: int, toy_data: Path, toy_teacher: Path, undisturbed: RunFolder, tmp_path: Path
) -> None:
    shutil.copytree(undisturbed.path.parent / ".answers", tmp_path / ".answers")
    path = next(tmp_path.glob(".answers/*/main-plain-00000.rows"))
    content = bytearray(path.read_bytes())
    content[:] = bytes(byte ^ 1 for byte in content)
    path.write_bytes(content)
    run = student(data=VIEW | {"workers": workers})
    with pytest.raises(SegctlError, match="its content does not match its checksum"):
        train(run, toy_data, toy_teacher, tmp_path / "run")
    path.unlink()
    resume_run(Request(run, toy_data, tmp_path, teacher=toy_teacher, device="cpu"), RunFolder(tmp_path / "run"), Silent())
    assert_same(RunFolder(tmp_path / "run"), undisturbed)


def test_two_runs_at_once_share_the_work(toy_data: Path, toy_teacher: Path, undisturbed: RunFolder, tmp_path: Path) -> None:
    """The second finds what the first makes while it is at its own."""
    request = Request(student(), toy_data, tmp_path, teacher=toy_teacher, device="cpu")
    first, second = build_session(request), build_session(request)
    assert first.teacher_cache is not None
    assert second.teacher_cache is not None
    assert first.teacher_outputs == second.teacher_outputs
    notes: list[str] = []

    def race(done: int, total: int) -> None:
        if done == 1:
            second.teacher_cache.fill(World(), notes.append, lambda done, total: None, "")

    first.teacher_cache.fill(World(), notes.append, race, "")
    for path in (undisturbed.path.parent / ".answers").glob("*/*"):
        assert (tmp_path / ".answers" / path.parent.name / path.name).read_bytes() == path.read_bytes()
    assert not list(tmp_path.glob(".answers/*/.*"))


def test_views_that_change_are_refused_before_anything_is_written(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(PresetError) as refused:
        student(data={"crop": [48, 64], "scale": [0.5, 1]})
    assert refused.value.message == (
        "toy has one fault\n  teacher.cache: got true with data.scale [0.5, 1.0], wanted one scale, such as data.scale [1, 1]"
    )
    with pytest.raises(InputError, match=r"^teacher.cache: got true with data.crop \[32, 48\], which cuts a random part out of"):
        train(student(data={"crop": [32, 48], "scale": [1, 1]}), toy_data, toy_teacher, tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_refused_before_anything_is_written(
    toy_data: Path, toy_teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(teacher_cache.shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError) as refused:
        train(student(), toy_data, toy_teacher, tmp_path / "new" / "run")
    assert str(refused.value).startswith(f"teacher.cache: the teacher's outputs need 0.1 MB more in '{tmp_path}/new/.answers/")
    assert str(refused.value).endswith(
        ", and only 0.0 MB are free there; free disk space, give another --runs-root, or leave teacher.cache false"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_the_size_and_keeps_nothing(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    watch = Silent()
    dry_run(Request(student(), toy_data, tmp_path, teacher=toy_teacher, device="cpu"), watch)
    assert any(note.startswith("teacher cache main, aux, features   10 images, plain and mirrored") for note in watch.notes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_processes_share_the_filling_and_take_the_same_steps(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    """One process computes the plain outputs, the other the mirrored ones."""
    folders = {}
    for cache in (False, True):
        run = student(cache, batch_size=4)
        preset = tmp_path / f"{cache}.yaml"
        preset.write_text(yaml.safe_dump(run.model_dump(mode="json")), encoding="utf-8")
        folders[cache] = RunFolder(tmp_path / str(cache) / "run")
        line = ["distill", "--preset", preset, "--teacher", toy_teacher, "--data-root", toy_data, "--run", folders[cache].path]
        line += ["--runs-root", tmp_path / str(cache), "--device", "cpu", "--processes", "2"]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        found = subprocess.run([sys.executable, "-m", "segctl", *map(str, line)], capture_output=True, text=True, env=environment)
        assert found.returncode == 0, found.stderr
    assert len(list(tmp_path.glob("True/.answers/*/*.rows"))) == 6
    assert_same(folders[True], folders[False])
