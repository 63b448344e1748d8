"""What a dry run finds, and what it leaves behind (nothing)."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from forked import run_in_processes
from toy import STUDENT, Silent, toy_run

from segctl.data.shards.dataset import open_dataset
from segctl.errors import InputError
from segctl.evaluate.count_images import Scoring
from segctl.models import build_model
from segctl.runtime.device import choose_compute
from segctl.runtime.world import World
from segctl.teacher.load import Teacher
from segctl.teacher.trial import try_teacher
from segctl.train.dry_run import dry_run
from segctl.train.loop import take_step
from segctl.train.session import Request


def test_a_dry_run_takes_a_step_and_keeps_nothing(toy_data: Path, toy_teacher: Path, tmp_path: Path) -> None:
    found = dry_run(Request(toy_run(STUDENT), toy_data, tmp_path, teacher=toy_teacher), Silent())
    assert {"loss", "step_s", "validation_mIoU_D", "checkpoint_mb", "peak_memory_mb", "teacher_mIoU_D"} == set(found)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_with_a_profile_shows_it_and_keeps_nothing(toy_data: Path, tmp_path: Path) -> None:
    watch = Silent()
    found = dry_run(Request(toy_run(), toy_data, tmp_path, profile=True), watch)
    plain = dry_run(Request(toy_run(), toy_data, tmp_path), Silent())
    assert found["loss"] == plain["loss"]
    assert [row[0] for row in watch.tables[0][1]][-1] == "step"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "backbone",
    [pytest.param("rexnet_100", marks=pytest.mark.slow), pytest.param("skresnet18", marks=pytest.mark.slow), "resnest14d"],
)
def test_a_backbone_that_cannot_train_on_one_image_says_so_before_the_step(backbone: str, toy_data: Path, tmp_path: Path) -> None:
    model = {"backbone": backbone, "weights": "none", "output_stride": 16}
    one = toy_run(model=model, train={"batch_size": 4, "accumulate": 4})
    with pytest.raises(InputError) as error:
        dry_run(Request(one, toy_data, tmp_path), Silent())
    assert error.value.message.startswith(f"model.backbone: '{backbone}' cannot train on one image at a time")
    two = toy_run(model=model, train={"batch_size": 4, "accumulate": 2})
    assert dry_run(Request(two, toy_data, tmp_path), Silent())["loss"] > 0


def steps_taken(rank: int, size: int, data: Path, runs: Path) -> int:
    taken = 0

    def counted(*given: Any) -> Any:
        nonlocal taken
        taken += 1
        return take_step(*given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("segctl.train.dry_run.take_step", counted)
        run = toy_run(train={"batch_size": 2})
        dry_run(Request(run, data, runs, device="cpu", world=World(rank, size, size)), Silent())
    return taken


@pytest.mark.slow
def test_several_processes_take_a_second_step_whose_beginning_compares_the_first(toy_data: Path, tmp_path: Path) -> None:
    assert run_in_processes(partial(steps_taken, data=toy_data, runs=tmp_path / "runs"), 2, tmp_path) == [2, 2]
    assert steps_taken(0, 1, toy_data, tmp_path / "runs") == 1


@pytest.mark.parametrize("broken", [True, False])
def test_a_teacher_whose_answers_are_not_finite_is_refused_by_its_trial(broken: bool, toy_data: Path) -> None:
    run, dataset = toy_run(), open_dataset(toy_data, "camvid")
    model = build_model(run.model, dataset.classes.num_classes).eval()
    model.class_names = dataset.classes.names
    if broken:
        model.classifier.bias.data.fill_(float("nan"))
    teacher = Teacher(model, Path("teacher.pt"), "toy", "0" * 64)
    how = Scoring(run.evaluate, choose_compute("cpu", "fp32"))
    with pytest.raises(InputError) if broken else nullcontext() as error:
        try_teacher(teacher, dataset, "val", how)
    if broken:
        assert error.value.message == "the teacher 'teacher.pt' returns NaN or infinite numbers for validation images"
