"""Every published method between a student of each small head and a teacher of the shipped kind."""

import itertools

import pytest
import torch

from segctl.distillers import build_distiller
from segctl.distillers.align import Pair, Shape
from segctl.errors import InputError
from segctl.models import Outputs
from segctl.schema.terms.methods import METHODS, published_bundle
from tests.models.specs import network
from tests.slow_cases import slow_where

HEADS = ("lraspp", "segformer", "fpn", "upernet")
SIZE = (65, 97)
SMALL = {"pixel_slots": 40, "region_slots": 10, "pixel_samples": 20, "region_samples": 10}


def outputs_of(head, aux=True):
    model = network(head, output_stride=32 if head in HEADS else 8, aux=aux)
    return model, Outputs(model.train()(torch.randn(2, 3, *SIZE)), SIZE)


@pytest.mark.parametrize(
    ("head", "method"),
    slow_where(itertools.product(HEADS, list(METHODS)[1:]), lambda pair: pair[0] != HEADS[0] and pair[1] != "kd"),
)
def test_the_student_learns_from_the_teacher(head, method):
    torch.manual_seed(0)
    student, mine = outputs_of(head)
    _, theirs = outputs_of("deeplabv3")
    spec = METHODS[method]
    memory = {"terms": tuple(term.model_copy(update=SMALL) if term.kind == "memory" else term for term in spec.terms)}
    distiller = build_distiller(spec.model_copy(update=memory), Pair(Shape.of(mine.prediction), Shape.of(theirs.prediction)))
    values = distiller(mine, theirs, torch.randint(0, 5, (2, *SIZE)))
    total = sum(distiller.weights[name] * value for name, value in values.items())
    assert total.isfinite()
    total.backward()
    assert any(parameter.grad is not None and parameter.grad.any() for parameter in student.backbone.parameters())


@pytest.mark.parametrize("head", HEADS)
def test_a_teacher_without_auxiliary_logits_is_refused_in_words(head):
    _, mine = outputs_of("pspnet")
    _, theirs = outputs_of(head, aux=False)
    distiller = build_distiller(METHODS["dist"], Pair(Shape.of(mine.prediction), Shape.of(theirs.prediction)))
    with pytest.raises(InputError, match="this teacher has none"):
        distiller(mine, theirs, torch.randint(0, 5, (2, *SIZE)))


@pytest.mark.parametrize("head", HEADS)
def test_methods_for_a_student_without_auxiliary_head_need_none(head):
    _, mine = outputs_of(head, aux=False)
    _, theirs = outputs_of("deeplabv3")
    for method in ("maskd", "dist", "dsd", "jml"):
        spec = published_bundle(method, "cityscapes", aux=False)
        distiller = build_distiller(spec, Pair(Shape.of(mine.prediction), Shape.of(theirs.prediction)))
        assert all(value.isfinite() for value in distiller(mine, theirs, torch.randint(0, 5, (2, *SIZE))).values())
