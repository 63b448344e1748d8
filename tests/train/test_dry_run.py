"""What a dry run finds, and what it leaves behind (nothing)."""

from pathlib import Path

import pytest
from toy import STUDENT, Silent, toy_run

from segctl.errors import InputError
from segctl.train.dry_run import dry_run
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
