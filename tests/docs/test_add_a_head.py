"""docs/add-a-head.md: a head works after exactly these steps, and does not if one of them is left out."""

from pathlib import Path

import pytest
from page_steps import Step, commands_of, copy_repository, run, steps_of

PAGE = "add-a-head.md"
STEPS = steps_of(PAGE)
SHOWN, TESTED = commands_of(PAGE)

TRAIN = """
import torch
from segctl.models import build_model
from segctl.schema.load import load_preset
from segctl.train.tasks import SupervisedTask

run = load_preset("camvid-psp18", ["model.head=fcn", "model.backbone=test_resnet", "model.width=8", "model.weights=none"])
model = build_model(run.model, 11)
images, label = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8), torch.randint(0, 11, (2, 64, 64), dtype=torch.uint8)
SupervisedTask(model, run.labels, run.loss).train()(images, label).loss.backward()
assert all(parameter.grad is not None for parameter in model.head.parameters())
"""


def perform(folder: Path, steps: list[Step]) -> None:
    """Do the steps in a copy, then try everything that a head is there for."""
    for step in steps:
        step.perform(folder)
    assert "head: fcn" in run(folder, SHOWN)
    (folder / "train.py").write_text(TRAIN, encoding="utf-8")
    run(folder, "python train.py")
    run(folder, f"{TESTED} -k fcn")


@pytest.mark.slow
def test_the_steps_make_a_head_that_presets_show(tmp_path: Path) -> None:
    assert len(STEPS) == 3
    copy_repository(tmp_path)
    for step in STEPS:
        step.perform(tmp_path)
    assert "head: fcn" in run(tmp_path, SHOWN)


@pytest.mark.slow
def test_the_steps_make_a_head_that_trains_and_is_tested(tmp_path: Path) -> None:
    perform(copy_repository(tmp_path), STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("left_out", range(len(STEPS)))
def test_without_one_of_the_steps_there_is_no_head(left_out: int, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        perform(copy_repository(tmp_path), [step for number, step in enumerate(STEPS) if number != left_out])
