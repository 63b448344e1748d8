"""A run folder whose files were changed is refused with the file and the field, and the way out that the sentence names works."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from damage import edit_json, flip_bit
from toy import PRESET, STUDENT, Silent, toy_run

from segctl.errors import InputError, SegctlError
from segctl.files import read_json
from segctl.models import read
from segctl.runs import RunFolder
from segctl.schema.run import TrainRun
from segctl.train.extend import extend_run
from segctl.train.resume import resume_run
from segctl.train.session import Request
from segctl.train.start import start_run
from tests.slow_cases import slow_after

TRAIN = {"steps": 4, "checkpoint_every": 2, "validate_every": 4}


class StopsAfter(Silent):
    """Stops the run once a step has been reported."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def stepped(self, report: Any, steps: int) -> None:
        if report.step == self.step:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def three_steps(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed after its third of four steps; last.pt holds the second."""
    root = tmp_path_factory.mktemp("runs")
    with pytest.raises(KeyboardInterrupt):
        start_run(Request(toy_run(train=TRAIN), toy_data, root), RunFolder(root / "run"), StopsAfter(3))
    return root / "run"


@pytest.fixture
def folder(three_steps: Path, tmp_path: Path) -> RunFolder:
    """A copy of the killed run."""
    return RunFolder(Path(shutil.copytree(three_steps, tmp_path / "run")))


def resume(folder: RunFolder, data: Path, **request: Any) -> None:
    resume_run(Request(folder.read_run(), data, folder.path.parent, **request), folder, Silent())


def refused(folder: RunFolder, data: Path) -> str:
    before = folder.last.read_bytes() if folder.last.is_file() else b""
    with pytest.raises(InputError) as caught:
        resume(folder, data)
    assert before == (folder.last.read_bytes() if folder.last.is_file() else b"")
    return str(caught.value)


def weights(folder: RunFolder) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = read(folder.model).weights
    return found


@pytest.mark.parametrize("member", ["data/0", "data.pkl"])
def test_a_flipped_bit_in_a_checkpoint_is_refused_and_the_run_can_start_again(
    member: str, folder: RunFolder, toy_data: Path, tmp_path: Path
) -> None:
    flip_bit(folder.last, member)
    said = refused(folder, toy_data)
    assert said.startswith(f"'{folder.last}' is damaged: ")
    assert said.endswith("does not match its checksum; delete that file and resume: the run then starts again at its first step")
    folder.last.unlink()
    resume(folder, toy_data)
    undisturbed = RunFolder(tmp_path / "undisturbed")
    start_run(Request(toy_run(train=TRAIN), toy_data, tmp_path), undisturbed, Silent())
    mine, theirs = weights(folder), weights(undisturbed)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_flipped_bit_in_the_best_weights_is_refused_before_they_are_shipped(toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    run = toy_run(train=TRAIN | {"select": "best"})
    start_run(Request(run, toy_data, tmp_path), folder, Silent())
    folder.model.unlink()
    flip_bit(folder.best)
    with pytest.raises(SegctlError, match=r"best\.pt' is damaged: .*; delete it, then resume with `segctl train --resume"):
        resume(folder, toy_data)
    assert not folder.finished
    folder.best.unlink()
    resume(folder, toy_data)
    assert read_json(folder.environment)["finished"] is not None
    read(folder.path)


@pytest.mark.slow
def test_masks_that_changed_on_the_disk_are_refused(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    run = toy_run(STUDENT, train=TRAIN, distiller={"terms": [{"kind": "maskd", "tokens": 3, "stage": {"steps": 2}}]})
    request = Request(run, toy_data, tmp_path, teacher=toy_teacher)
    start_run(request, RunFolder(tmp_path / "first"), Silent())
    (masks,) = (tmp_path / ".stages").glob("*.pt")
    flip_bit(masks)
    with pytest.raises(InputError, match=rf"'{masks}' is damaged: .*; delete that file, then run the same command again"):
        start_run(request, RunFolder(tmp_path / "second"), Silent())
    masks.unlink()
    resume_run(request, RunFolder(tmp_path / "second"), Silent())
    mine, theirs = weights(RunFolder(tmp_path / "second")), weights(RunFolder(tmp_path / "first"))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ("lr: 0.05", "lr: 0.5", "optim.lr: 0.05 -> 0.5"),
        ("seed: 0", "seed: 7", "train.seed: 0 -> 7"),
        ("steps: 4", "steps: 400", "train.steps: 4 -> 400"),
        ("steps: 4", "steps: 1", "train.steps: 4 -> 1"),
        ("smooth: 1.0", "smooth: 2.0", "loss: "),
    ],
)
def test_an_edited_run_is_refused_by_the_settings_that_differ(
    before: str, after: str, named: str, folder: RunFolder, toy_data: Path
) -> None:
    text = folder.run_yaml.read_text()
    assert before in text
    folder.run_yaml.write_text(text.replace(before, after))
    said = refused(folder, toy_data)
    assert said.startswith(f"'{folder.run_yaml}' was changed after the run was started: {named}")
    folder.run_yaml.write_text(text)
    resume(folder, toy_data)


def test_a_setting_that_changes_no_number_may_be_edited(folder: RunFolder, toy_data: Path) -> None:
    text = folder.run_yaml.read_text()
    folder.run_yaml.write_text(text.replace("checkpoint_every: 2", "checkpoint_every: 1"))
    resume(folder, toy_data)
    assert folder.finished


def test_a_run_that_was_extended_and_killed_before_its_next_checkpoint_resumes(folder: RunFolder, toy_data: Path) -> None:
    longer = folder.read_run().model_copy(update={"train": folder.read_run().train.model_copy(update={"steps": 8})})
    with pytest.raises(KeyboardInterrupt):
        extend_run(Request(longer, toy_data, folder.path.parent), folder, StopsAfter(3))
    resume(folder, toy_data)
    assert torch.load(folder.last, weights_only=True)["step"] == 8


def test_a_checkpoint_of_a_version_that_did_not_store_the_run_resumes(folder: RunFolder, toy_data: Path) -> None:
    content = torch.load(folder.last, weights_only=True)
    del content["about"]["settings"]
    torch.save(content, folder.last)
    resume(folder, toy_data)
    assert folder.finished


@pytest.mark.parametrize("with_checkpoint", [True, False])
def test_another_dataset_than_the_one_recorded_is_refused(with_checkpoint: bool, folder: RunFolder, toy_data: Path) -> None:
    edit_json(folder.environment, dataset={"name": "camvid", "fingerprint": "0" * 64, "trial": None})
    if not with_checkpoint:
        folder.last.unlink()
    assert "was started with another dataset fingerprint" in refused(folder, toy_data)


@pytest.mark.parametrize("with_checkpoint", slow_after([True, False]))
def test_another_teacher_than_the_one_recorded_is_refused(
    with_checkpoint: bool, toy_data: Path, toy_teacher: Path, tmp_path: Path
) -> None:
    folder = RunFolder(tmp_path / "run")
    run = toy_run(STUDENT, train=TRAIN)
    with pytest.raises(KeyboardInterrupt):
        start_run(Request(run, toy_data, tmp_path, teacher=toy_teacher), folder, StopsAfter(3))
    if not with_checkpoint:
        folder.last.unlink()
    recorded = read_json(folder.environment)["teacher"]
    edit_json(folder.environment, teacher=recorded | {"sha256": "0" * 64})
    assert "was started with another teacher's sha256" in refused(folder, toy_data)
    edit_json(folder.environment, teacher=None)
    with pytest.raises(InputError, match="one of them names a teacher, the other none"):
        resume(folder, toy_data, teacher=toy_teacher)
    edit_json(folder.environment, teacher=recorded)
    resume(folder, toy_data)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        ("", "it is not valid JSON"),
        ("[]", "it holds a list, wanted an object"),
        ("null", "it holds null, wanted an object"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"seconds": ' + "9" * 5000 + "}", "cannot read"),
        ('{"seconds": "long"}', "seconds is 'long', wanted"),
        ('{"seconds": NaN}', "seconds is nan, wanted"),
        ('{"seconds": true}', "seconds is True, wanted"),
        ('{"teacher": {"run": 3, "sha256": "a"}}', "teacher.run is 3, wanted"),
        ('{"teacher": {"run": "x"}}', "teacher.sha256 is missing"),
        ('{"dataset": []}', "dataset is [], wanted"),
        ('{"data_root": 7}', "data_root is 7, wanted"),
        ('{"extended": [{"from": 1}]}', "extended.0.to is missing"),
    ],
)
def test_a_damaged_environment_is_refused_with_its_field(content: str, wanted: str, folder: RunFolder, toy_data: Path) -> None:
    folder.environment.write_text(content)
    said = refused(folder, toy_data)
    assert str(folder.environment) in said
    assert wanted in said
    assert said.endswith("put back the file that segctl wrote, or start a new run")


def test_bytes_that_are_no_text_and_a_lost_file_are_refused(folder: RunFolder, toy_data: Path) -> None:
    folder.environment.write_bytes(b'{"a": "\xff"}')
    assert "byte 7 is not UTF-8" in refused(folder, toy_data)
    folder.environment.unlink()
    assert "has lost its environment.json" in refused(folder, toy_data)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("[1]", "it holds a list"),
        ("{", "it is not valid JSON"),
        ("", "it is not valid JSON"),
        ('{"step": 1}', "event is missing"),
        ('{"event": ["step"]}', "event is ['step'], wanted"),
        ('{"event": "step", "step": "1", "loss": 1.0, "terms": {}}', "step is '1', wanted"),
        ('{"event": "step", "step": 1, "terms": {}}', "loss is missing"),
        ('{"event": "validation", "step": 1, "scores": 3}', "scores is 3, wanted"),
        ('{"event": "end", "step": -1, "weights_of": "x"}', "step is -1, wanted"),
    ],
)
def test_a_damaged_line_of_the_log_is_refused_with_its_number(line: str, wanted: str, folder: RunFolder, toy_data: Path) -> None:
    text = folder.log.read_text()
    folder.log.write_text(f"{line}\n{text}")
    said = refused(folder, toy_data)
    assert f"line 1 of '{folder.log}'" in said
    assert wanted in said


def test_a_last_line_that_does_not_end_is_dropped(folder: RunFolder, toy_data: Path) -> None:
    events = folder.read_log()
    with folder.log.open("a") as handle:
        handle.write('{"event": "step", "st')
    assert folder.read_log() == events
    resume(folder, toy_data)
    steps = [event["step"] for event in folder.read_log() if event["event"] == "step"]
    assert steps == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"step": "two"}, "step is 'two', wanted"),
        ({"step": -1}, "step is -1, wanted"),
        ({"best": None}, "best is None, wanted"),
        ({"best": {"score": 1.0}}, "best.step is missing"),
        ({"rng": {}}, "rng is {}, wanted"),
        ({"about": {"run": "toy"}}, "about.dataset is missing"),
        ({"task": []}, "task is [], wanted"),
        ({"task": {}}, "does not fit this run"),
        ({"optimizer": {}}, "does not fit this run"),
        ({"format": 1}, "is not a checkpoint of this version of segctl"),
    ],
)
def test_a_checkpoint_of_another_shape_is_refused(
    changes: dict[str, Any], wanted: str, folder: RunFolder, toy_data: Path
) -> None:
    torch.save(torch.load(folder.last, weights_only=True) | changes, folder.last)
    said = refused(folder, toy_data)
    assert str(folder.last) in said
    assert wanted in said


def test_a_field_that_a_checkpoint_lacks_is_named(folder: RunFolder, toy_data: Path) -> None:
    content = torch.load(folder.last, weights_only=True)
    del content["validated"]
    torch.save(content, folder.last)
    assert "validated is missing" in refused(folder, toy_data)


def test_statistics_that_are_no_numbers_are_not_saved(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model file with them would be refused when it is read, so the run must not end as if it were fine."""
    from segctl.train import loop

    take_step = loop.take_step

    def spoil(session: Any, batch: Any) -> Any:
        result = take_step(session, batch)
        if session.state.step == 2:
            next(buffer for name, buffer in session.model.named_buffers() if name.endswith("running_mean")).fill_(float("nan"))
        return result

    monkeypatch.setattr(loop, "take_step", spoil)
    folder = RunFolder(tmp_path / "run")
    run: TrainRun = toy_run(PRESET, train=TRAIN)
    with pytest.raises(SegctlError, match=r"weights are NaN or infinite after step (3|4), the first is model\..*running_mean"):
        start_run(Request(run, toy_data, tmp_path), folder, Silent())
    assert torch.load(folder.last, weights_only=True)["step"] == 2
    assert json.loads(folder.log.read_text().splitlines()[0])["event"] == "step"


def test_a_change_that_was_recorded_after_the_checkpoint_is_no_edit(folder: RunFolder, toy_data: Path) -> None:
    folder.run_yaml.write_text(folder.run_yaml.read_text().replace("lr: 0.05", "lr: 0.01"))
    change = {"at_step": 2, "from": {"optim.lr": 0.05}, "to": {"optim.lr": 0.01}}
    edit_json(folder.environment, changed=[change | {"at_step": 1}])
    assert "optim.lr: 0.05 -> 0.01" in refused(folder, toy_data)
    edit_json(folder.environment, changed=[change])
    resume(folder, toy_data)
