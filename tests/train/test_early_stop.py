"""Early stopping and the best weights, on a run whose scores are known in advance."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from toy import Silent, toy_run

from segctl.metrics.scores import SCORE_NAMES
from segctl.models import read
from segctl.report.collect import read_run
from segctl.report.groups import grouped
from segctl.report.tables import status
from segctl.runs import RunFolder
from segctl.schema.run import TrainRun, with_steps
from segctl.train.checkpoint import Waiting
from segctl.train.extend import extend_run
from segctl.train.resume import resume_run
from segctl.train.session import Request
from segctl.train.start import start_run

CURVE = {1: 10.0, 2: 20.0, 3: 15.0, 4: None, 5: 20.0, 6: 19.0, 7: 40.0, 8: 30.0, 9: 30.0, 10: 50.0}
"""mIoU_D after each step; mIoU_C is 100 minus it, and the class Car follows it at a tenth."""


def run_of(**train: object) -> TrainRun:
    return toy_run(train={"steps": 10, "validate_every": 1, "checkpoint_every": 2, **train})


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Every validation's scores are those of CURVE; returns the steps that were validated."""
    from segctl.train import validate as module

    original, steps = module.validate, []

    def score(table: object, *, binary: bool) -> dict[str, float | None]:
        value = CURVE[steps[-1]]
        return dict.fromkeys(SCORE_NAMES) | {"mIoU_D": value, "mIoU_C": None if value is None else 100 - value}

    def class_scores(table: object, *, binary: bool) -> dict[str, float | None]:
        value = CURVE[steps[-1]]
        return {"IoU_D.Car": None if value is None else value / 10}

    def validate(session: object, *more: object) -> None:
        steps.append(session.state.step)  # type: ignore[attr-defined]
        original(session, *more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "score", score)
    monkeypatch.setattr(module, "class_scores", class_scores)
    monkeypatch.setattr("segctl.train.loop.validate", validate)
    return lambda: steps


def ending(folder: RunFolder) -> dict[str, object]:
    return next(event for event in folder.read_log() if event["event"] == "end")


def test_waiting_by_hand() -> None:
    waiting, counted = Waiting(), []
    for score in (10.0, 10.5, 11.5, None, 11.0):
        waiting.add(score, min_gain=1.0)
        counted.append((waiting.score, waiting.validations))
    assert counted == [(10.0, 0), (10.0, 1), (11.5, 0), (11.5, 1), (11.5, 2)]


@pytest.mark.parametrize(
    ("early_stop", "last"),
    [
        pytest.param({"patience": 1}, 3, marks=pytest.mark.slow),
        ({"patience": 3}, 5),  # 15, undefined, and 20, which is no better than 20
        pytest.param({"patience": 4}, 6, marks=pytest.mark.slow),
        pytest.param({"patience": 5}, 10, marks=pytest.mark.slow),
        pytest.param({"patience": 5, "min_gain": 15}, 6, marks=pytest.mark.slow),  # 20 is only 10 better than 10
        pytest.param({"patience": 2, "score": "mIoU_C"}, 3, marks=pytest.mark.slow),  # 90 is the best one
        pytest.param({"patience": 1, "score": "IoU_D.Car", "min_gain": 0.5}, 3, marks=pytest.mark.slow),
    ],
)
def test_a_run_ends_after_validations_without_a_better_score(
    early_stop: dict[str, object], last: int, known: Callable[[], list[int]], toy_data: Path, tmp_path: Path
) -> None:
    watch = Silent()
    folder = start_run(Request(run_of(early_stop=early_stop), toy_data, tmp_path), RunFolder(tmp_path / "run"), watch)
    assert known() == list(range(1, last + 1))
    assert ending(folder)["step"] == last
    assert folder.finished
    assert folder.read_environment()["finished"] is not None
    assert any("stopped early: " in note for note in watch.notes) == (last < 10)
    assert any(f"{early_stop.get('score', 'mIoU_D')}" in note for note in watch.notes if note.startswith("early stopping: after"))
    run = read_run(folder)
    assert status(run) == ("finished, not evaluated" if last == 10 else f"stopped early, step {last}, not evaluated")
    if "score" in early_stop and "." in str(early_stop["score"]):
        scores = [event["scores"] for event in folder.read_log() if event["event"] == "validation"]
        assert [one["IoU_D.Car"] for one in scores] == [1.0, 2.0, 1.5]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("select_by", "best"),
    [pytest.param("mIoU_D", 10, marks=pytest.mark.slow), ("mIoU_C", 1), pytest.param("IoU_D.Car", 10, marks=pytest.mark.slow)],
)
def test_the_best_weights_are_those_of_the_named_score(
    select_by: str, best: int, known: Callable[[], list[int]], toy_data: Path, tmp_path: Path
) -> None:
    run = run_of(select="best", select_by=select_by)
    folder = start_run(Request(run, toy_data, tmp_path), RunFolder(tmp_path / "run"), Silent())
    value = {"mIoU_D": "50.00", "mIoU_C": "90.00", "IoU_D.Car": "5.00"}[select_by]
    assert ending(folder)["weights_of"] == f"the best validation, after step {best} ({value} {select_by})"


class StopsBeforeTheModel(Silent):
    """Ends the process where the last checkpoint is written and the model is not, as a kill would."""

    def note(self, text: str) -> None:
        if text.startswith("stopped early"):
            raise KeyboardInterrupt


class StopsAtFour(Silent):
    def stepped(self, report: object, steps: int) -> None:
        if getattr(report, "step", 0) == 4:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("killed", [StopsBeforeTheModel, StopsAtFour])
def test_a_killed_run_resumes_to_the_same_end(
    killed: type[Silent], known: Callable[[], list[int]], toy_data: Path, tmp_path: Path
) -> None:
    request = Request(run_of(early_stop={"patience": 3}), toy_data, tmp_path)
    whole = start_run(request, RunFolder(tmp_path / "whole"), Silent())
    folder = RunFolder(tmp_path / "killed")
    with pytest.raises(KeyboardInterrupt):
        start_run(request, folder, killed())
    assert not folder.finished
    resume_run(request, folder, Silent())
    assert known()[-1] == 5
    assert ending(folder)["step"] == 5
    one, other = (read(each.path).weights for each in (whole, folder))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert [event["step"] for event in folder.read_log() if event["event"] == "validation"] == [1, 2, 3, 4, 5]


@pytest.mark.slow
def test_a_run_that_stopped_early_can_be_extended(known: Callable[[], list[int]], toy_data: Path, tmp_path: Path) -> None:
    run = with_steps(run_of(early_stop={"patience": 3}), 8)
    folder = start_run(Request(run, toy_data, tmp_path), RunFolder(tmp_path / "run"), Silent())
    watch = Silent()
    extend_run(Request(with_steps(run, 10), toy_data, tmp_path), folder, watch)
    assert "the run was stopped early after step 5; early stopping counts again from here" in watch.notes
    assert known() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]  # 40 after step 7 is better, and 50 after step 10
    assert (folder.path / "model-5.safetensors").is_file()


@pytest.mark.slow
def test_seeds_that_stop_at_different_steps_are_one_group(
    known: Callable[[], list[int]], toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    for seed in (0, 1):
        run = run_of(early_stop={"patience": 3}, seed=seed)
        runs.append(start_run(Request(run, toy_data, tmp_path), RunFolder(tmp_path / f"run{seed}"), Silent()))
        monkeypatch.setitem(CURVE, 3, 25.0)  # the second seed goes on for one validation more
    assert [ending(folder)["step"] for folder in runs] == [5, 6]
    assert len(grouped([read_run(folder) for folder in runs])) == 1


@pytest.mark.slow
def test_checkpoints_of_earlier_versions_have_waited_for_nothing(toy_data: Path, tmp_path: Path) -> None:
    from segctl.train.checkpoint import read_checkpoint

    folder = start_run(Request(run_of(), toy_data, tmp_path), RunFolder(tmp_path / "run"), Silent())
    content = torch.load(folder.last, weights_only=True)
    del content["waiting"]
    torch.save(content, folder.last)
    assert read_checkpoint(folder.last).waiting.validations == 0
    assert json.loads(folder.environment.read_text())["steps"] == 10
