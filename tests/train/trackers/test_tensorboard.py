"""What TensorBoard is given is what log.jsonl says, once each."""

import builtins
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from toy import Silent, toy_run

from segctl.errors import InputError
from segctl.models import read
from segctl.runs import RunFolder
from segctl.train.resume import resume_run
from segctl.train.session import Request
from segctl.train.start import start_run
from segctl.train.trackers.tracking import Tracking

accumulators = pytest.importorskip(
    "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
)
RUN = {"train": {"steps": 8, "validate_every": 4, "checkpoint_every": 3}}


def curves(folder: RunFolder) -> dict[str, list[tuple[int, float]]]:
    """Every curve as (step, value), as TensorBoard would draw it."""
    read = accumulators.EventAccumulator(str(folder.tensorboard), size_guidance={"scalars": 0, "tensors": 0})
    read.Reload()
    scalars = {tag: [(event.step, event.value) for event in read.Scalars(tag)] for tag in read.Tags()["scalars"]}
    assert read.Tags()["tensors"] == ["preset/text_summary"] or not scalars.keys() - {"validation/c"}
    return scalars


def pictures(folder: RunFolder) -> dict[str, list[int]]:
    """The steps of every picture."""
    read = accumulators.EventAccumulator(str(folder.tensorboard), size_guidance={"images": 0})
    read.Reload()
    return {tag: [event.step for event in read.Images(tag)] for tag in read.Tags()["images"]}


class Stopping(Silent):
    """Ends the run after a step, as a kill would."""

    def stepped(self, report: object, steps: int) -> None:
        if getattr(report, "step", 0) == 6:
            raise KeyboardInterrupt


def request(data: Path, runs: Path, *, tensorboard: bool = True) -> Request:
    return Request(toy_run(**RUN), data, runs, device="cpu", track=("tensorboard",) if tensorboard else ())


def assert_as_logged(folder: RunFolder) -> None:
    found = curves(folder)
    steps = [event for event in folder.read_log() if event["event"] == "step"]
    assert [step for step, _ in found["loss/total"]] == list(range(1, 9))
    for curve, field in (("loss/total", "loss"), ("train/lr", "lr"), ("train/gradient_norm", "gradient_norm"),
                         ("time/data_s", "data_s"), ("time/step_s", "step_s"), ("time/images_per_s", "images_per_s"),
                         ("memory/peak_mb", "memory_mb")):  # fmt: skip
        assert [value for _, value in found[curve]] == pytest.approx([event[field] for event in steps], rel=1e-6), curve
    assert [value for _, value in found["loss/jdt_main"]] == pytest.approx([event["terms"]["jdt_main"] for event in steps])
    validations = [(event["step"], event["scores"]["mIoU_D"]) for event in folder.read_log() if event["event"] == "validation"]
    assert found["validation/mIoU_D"] == [(step, pytest.approx(score)) for step, score in validations]
    assert len(validations) == 2
    assert pictures(folder) == {f"worst/{rank}": [4, 8] for rank in range(4)}


def test_every_number_of_the_log_is_a_curve(toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    start_run(request(toy_data, tmp_path), folder, Silent())
    assert_as_logged(folder)


@pytest.mark.slow
def test_a_run_that_goes_on_draws_no_step_twice(toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        start_run(request(toy_data, tmp_path), folder, Stopping())  # steps 4 and 5 are drawn, and the checkpoint is of step 3
    resume_run(request(toy_data, tmp_path, tensorboard=False), folder, Silent())  # goes on being drawn without being asked
    assert_as_logged(folder)


@pytest.mark.slow
def test_a_run_drawn_from_its_second_start_on_has_whole_curves(toy_data: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        start_run(request(toy_data, tmp_path, tensorboard=False), folder, Stopping())
    assert not folder.tensorboard.exists()
    resume_run(request(toy_data, tmp_path), folder, Silent())
    assert_as_logged(folder)


@pytest.mark.slow
def test_drawing_changes_nothing_that_is_computed(toy_data: Path, tmp_path: Path) -> None:
    for name, drawn in (("plain", False), ("drawn", True)):
        start_run(request(toy_data, tmp_path, tensorboard=drawn), RunFolder(tmp_path / name), Silent())
    one, other = (read(tmp_path / name).weights for name in ("plain", "drawn"))
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_a_score_that_is_not_defined_is_not_drawn(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    tracking = Tracking(folder, toy_run(), ["tensorboard"], 0, note=print)
    tracking.event("validation", {"step": 4, "scores": {"a": None, "b": math.nan, "c": 2.0}})
    assert curves(folder) == {"validation/c": [(4, 2.0)]}


def test_a_missing_package_is_said_before_anything_is_written(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[..., Any] = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return original(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError) as error:
        start_run(request(toy_data, tmp_path), RunFolder(tmp_path / "run"), Silent())
    assert str(error.value) == (
        "--track tensorboard needs the package tensorboard, which is not installed; "
        'run `pip install "segctl[tensorboard]"`, or leave out --track tensorboard; log.jsonl has the same numbers'
    )
    assert not (tmp_path / "run").exists()
