"""A disk that fills up while a run writes costs a sentence, never a file that was whole; the run resumes once there is room."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import Silent, toy_run, write_preset

from segctl.cli import main
from segctl.errors import SegctlError
from segctl.files import append_line, write_whole
from segctl.models import read
from segctl.runs import RunFolder
from segctl.train.resume import resume_run
from segctl.train.session import Request
from segctl.train.start import start_run
from tests.slow_cases import slow_after

TRAIN = {"steps": 4, "checkpoint_every": 2, "validate_every": 2, "select": "best"}


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file grow beyond `size` bytes, as on a disk that fills up in the middle of one."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("size", [10_000, 100_000, 399_000])
def test_torchs_words_for_a_full_disk_become_a_sentence(size: int, tmp_path: Path) -> None:
    path = tmp_path / "last.pt"
    path.write_text("old")
    with pytest.raises(SegctlError) as caught, files_of_at_most(size):
        write_whole(path, lambda partial: torch.save({"a": torch.zeros(50_000), "b": torch.zeros(50_000)}, partial))
    assert caught.value.exit_code == 1
    assert caught.value.message.startswith(f"cannot write '{path}': ")
    assert "unexpected pos" not in caught.value.message
    assert caught.value.hint.startswith("free disk space")
    assert [found.name for found in tmp_path.iterdir()] == ["last.pt"]
    assert path.read_text() == "old"


def test_an_error_of_ours_is_not_called_a_full_disk(tmp_path: Path) -> None:
    def fail(partial: Path) -> None:
        raise RuntimeError("a tensor has the wrong shape")

    with pytest.raises(RuntimeError, match="wrong shape"):
        write_whole(tmp_path / "a", fail)


def test_a_line_that_does_not_fit_names_its_file(tmp_path: Path) -> None:
    append_line(tmp_path / "log", "ü")
    with pytest.raises(SegctlError, match=r"cannot write '.*log': .*; free disk space"), files_of_at_most(50):
        append_line(tmp_path / "log", "x" * 100)


class Fills(Silent):
    """Fills the disk once a step has been reported: from then on no file grows beyond `size` bytes."""

    def __init__(self, step: int, size: int) -> None:
        super().__init__()
        self.step, self.size = step, size

    def stepped(self, report: Any, steps: int) -> None:
        if report.step == self.step:
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, hard))


@pytest.fixture(scope="module")
def undisturbed(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    runs = tmp_path_factory.mktemp("undisturbed")
    return start_run(Request(toy_run(train=TRAIN), toy_data, runs), RunFolder(runs / "run"), Silent())


@pytest.mark.parametrize(("step", "named"), slow_after([(3, "last.pt"), (2, "best.pt"), (3, "train.log")]))
def test_a_run_on_a_full_disk_keeps_its_last_good_files_and_resumes(
    step: int, named: str, undisturbed: RunFolder, toy_data: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    request = Request(toy_run(train=TRAIN), toy_data, tmp_path)
    best = undisturbed.best.stat().st_size
    size = {"best.pt": best - 1000, "last.pt": best + 1000, "train.log": 200}[named]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(SegctlError) as caught:
            start_run(request, folder, Fills(step, size))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.message.startswith(f"cannot write '{folder.path / named}': ")
    assert caught.value.hint.startswith("free disk space, then resume with `segctl train --resume --run")
    assert not [path.name for path in folder.path.iterdir() if ".part" in path.name or path.name == ".lock"]
    if step > 2:
        assert torch.load(folder.last, weights_only=True)["step"] == 2
    resume_run(request, folder, Silent())
    mine, theirs = (read(each.model).weights for each in (folder, undisturbed))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert [event["step"] for event in folder.read_log() if event["event"] == "step"] == [1, 2, 3, 4]


@pytest.mark.slow
def test_a_model_file_that_does_not_fit_leaves_the_run_unfinished(toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    request = Request(toy_run(train=TRAIN), toy_data, tmp_path)
    start_run(request, folder, Silent())
    whole = folder.model.read_bytes()
    folder.model.unlink()
    with pytest.raises(SegctlError, match=r"cannot write '.*model\.safetensors': "), files_of_at_most(30_000):
        resume_run(request, folder, Silent())
    assert not folder.finished
    resume_run(request, folder, Silent())
    assert folder.model.read_bytes() == whole


def test_a_dry_run_with_a_full_folder_for_temporary_files_is_a_sentence(
    toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    preset = write_preset(tmp_path / "toy.yaml", train=TRAIN)
    with files_of_at_most(30_000):
        code = main(["train", "--preset", str(preset), "--data-root", str(toy_data), "--dry-run"])
    said = capsys.readouterr().err
    assert code == 1
    assert "error: cannot write " in said
    assert "free disk space" in said


def test_no_folder_for_temporary_files_is_a_sentence(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import tempfile

    preset = write_preset(tmp_path / "toy.yaml", train=TRAIN)

    def none_usable() -> None:
        raise FileNotFoundError(2, "No usable temporary directory found in ['/tmp']")

    monkeypatch.setattr(tempfile, "gettempdir", none_usable)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", none_usable)
    assert main(["train", "--preset", str(preset), "--data-root", str(toy_data), "--dry-run"]) == 2
    assert "No usable temporary directory" in capsys.readouterr().err
