"""A teacher with folded networks teaches what it taught before."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from toy import HEIGHT, STUDENT, WIDTH, toy_run

from segctl.data.shards.dataset import open_dataset
from segctl.distillers import build_distiller
from segctl.distillers.align import Pair, Shape
from segctl.models import build_model
from segctl.models.forward import forward_images
from segctl.models.outputs import Outputs, Prediction
from segctl.schema.load import with_method
from segctl.schema.run import DistillRun
from segctl.schema.terms.methods import METHODS, TeacherSpec
from segctl.teacher.ensemble import averaged, with_folded_networks
from segctl.teacher.load import Teacher, load_teacher
from tests.slow_cases import slow_where


@pytest.fixture(scope="module")
def teacher(toy_data: Path, toy_teacher: Path) -> Teacher:
    return load_teacher(toy_teacher / "model.safetensors", open_dataset(toy_data, "camvid"))


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def pictures() -> Tensor:
    torch.manual_seed(3)
    return torch.randint(0, 256, (4, HEIGHT, WIDTH, 3), dtype=torch.uint8)


def terms_of(method: str, found: Prediction) -> dict[str, Tensor]:
    """The values of a method's terms, and of their gradients to the student's outputs, for what a teacher gave."""
    run = with_method(toy_run(STUDENT), method)
    assert isinstance(run, DistillRun)
    torch.manual_seed(0)
    student = build_model(run.model.model_copy(update={"weights": "none"}), 11).train()
    label = torch.randint(0, 11, (4, HEIGHT, WIDTH))
    label[:, :2] = 255
    ours = forward_images(student, pictures())
    distiller = build_distiller(run.distiller, Pair(Shape.of(ours), Shape.of(found)))
    torch.manual_seed(1)
    size = (HEIGHT, WIDTH)
    values = distiller(Outputs(ours, size), Outputs(found, size), label)
    total = torch.stack([value for value in values.values() if value.requires_grad]).sum()
    slopes = torch.autograd.grad(total, [each for each in ours if each is not None], allow_unused=True)
    return values | {f"gradient {index}": slope.norm() for index, slope in enumerate(slopes) if slope is not None}


@pytest.mark.parametrize("method", slow_where(list(METHODS)[1:], lambda method: method not in ("jml", "cwd", "cirkd")))
def test_every_method_learns_the_same(method: str, teacher: Teacher) -> None:
    found = with_folded_networks(teacher, torch.float32)
    assert (norms(teacher.model) > 10, norms(found.model)) == (True, 0)
    with torch.no_grad():
        before, after = (forward_images(each.model, pictures()) for each in (teacher, found))
    theirs, mine = terms_of(method, before), terms_of(method, after)
    assert mine.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(mine[name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_the_note_counts_and_the_teacher_itself_stays(teacher: Teacher) -> None:
    found = with_folded_networks(teacher, torch.bfloat16)
    assert found.notes[-1] == f"the teacher's {norms(teacher.model)} batch norms are folded into its convolutions"
    assert found.sha256 == teacher.sha256
    assert {each.dtype for each in teacher.model.parameters()} == {torch.float32}


def test_the_members_of_an_ensemble_are_folded_and_are_those_that_teach(teacher: Teacher) -> None:
    members = [replace(teacher, model=copy.deepcopy(teacher.model)) for _ in range(2)]
    both = averaged(members, TeacherSpec(preset="toy", flip=True))
    with torch.no_grad():
        before = both.model(pictures())
        found = with_folded_networks(both, torch.float32)
        after = found.model(pictures())
    assert norms(found.model) == 0
    assert [member.model for member in found.members] == list(found.model.members)  # type: ignore[union-attr]
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-4, atol=1e-4)
