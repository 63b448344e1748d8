"""docs/add-a-term.md: a term works after exactly these steps, and does not if one of them is left out."""

from pathlib import Path

import pytest
from page_steps import Step, commands_of, copy_repository, run, steps_of

PAGE = "add-a-term.md"
STEPS = steps_of(PAGE)
SHOWN, TESTED = commands_of(PAGE)

TRAIN = """
import torch
from segctl.distillers import Pair, Shape, build_distiller
from segctl.models import build_model
from segctl.schema.load import load_preset
from segctl.schema.load import with_method
from segctl.train.tasks import DistillationTask

small = ["model.backbone=test_resnet", "model.width=8", "model.weights=none"]
run = with_method(load_preset("camvid-psp18", small), "sp")
student, teacher = build_model(run.model, 11), build_model(run.model, 11)
images, label = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8), torch.randint(0, 11, (2, 64, 64), dtype=torch.uint8)
shape = Shape.of(student.eval()(student.normalize(images)))
task = DistillationTask(student, run.labels, run.loss, teacher, build_distiller(run.distiller, Pair(shape, shape)))
step = task.train()(images, label)
step.loss.backward()
assert step.terms["sp"] > 0
assert all(parameter.grad is not None for parameter in student.head.parameters())
"""


def perform(folder: Path, steps: list[Step]) -> None:
    """Do the steps in a copy, then try everything that a term is there for."""
    for step in steps:
        step.perform(folder)
    assert "#   + 3000·similarity of images(features)" in run(folder, SHOWN)
    assert " sp," in run(folder, "segctl distill --help")
    (folder / "train.py").write_text(TRAIN, encoding="utf-8")
    run(folder, "python train.py")
    run(folder, f"{TESTED} -k 'sp- or test_sp'")


@pytest.mark.slow
def test_the_steps_make_a_term_that_presets_show(tmp_path: Path) -> None:
    assert len(STEPS) == 5
    copy_repository(tmp_path)
    for step in STEPS:
        step.perform(tmp_path)
    assert "#   + 3000·similarity of images(features)" in run(tmp_path, SHOWN)


@pytest.mark.slow
def test_the_steps_make_a_term_that_trains_and_is_tested(tmp_path: Path) -> None:
    perform(copy_repository(tmp_path), STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("left_out", range(len(STEPS)))
def test_without_one_of_the_steps_there_is_no_term(left_out: int, tmp_path: Path) -> None:
    with pytest.raises(AssertionError):
        perform(copy_repository(tmp_path), [step for number, step in enumerate(STEPS) if number != left_out])
