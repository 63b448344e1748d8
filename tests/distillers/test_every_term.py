"""What holds for every distillation term."""

import pytest
import torch
from distillers_golden import golden_inputs, outputs
from torch import Tensor, nn

from segctl.distillers import build_term
from segctl.errors import InputError
from segctl.losses import JDTLoss
from segctl.schema.distillers import DistillTermSpec, PixelKLSpec, SoftJDTSpec, SoftKLSpec

TERMS: list[DistillTermSpec] = [
    PixelKLSpec(),
    PixelKLSpec(temperature=4.0),
    SoftKLSpec(),
    SoftKLSpec(temperature=4.0),
    SoftJDTSpec(smooth=1.0),
    SoftJDTSpec(alpha=0.5, beta=0.5, miou_d=0.0, miou_c=1.0),
]
every_term = pytest.mark.parametrize("spec", TERMS, ids=[f"{spec.kind}-{index}" for index, spec in enumerate(TERMS)])


def value_and_gradients(term: nn.Module, student: Tensor, teacher: Tensor, label: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    student, teacher = student.clone().requires_grad_(), teacher.clone().requires_grad_()
    value = term(outputs(student), outputs(teacher), label)
    value.backward()
    return value.detach(), [student.grad, teacher.grad]


@every_term
def test_it_is_a_finite_scalar_with_gradient_to_the_student_and_none_to_the_teacher(spec: DistillTermSpec) -> None:
    value, (student, teacher) = value_and_gradients(build_term(spec), *golden_inputs())
    assert value.shape == ()
    assert value.isfinite()
    assert student is not None
    assert student.isfinite().all()
    assert student.abs().sum() > 0
    assert teacher is None


@every_term
def test_it_is_zero_when_student_equals_teacher(spec: DistillTermSpec) -> None:
    student, _, label = golden_inputs()
    value, _ = value_and_gradients(build_term(spec), student, student, label)
    assert value.item() == pytest.approx(0.0, abs=1e-12)


@every_term
def test_a_shift_of_all_of_a_pixels_logits_changes_nothing(spec: DistillTermSpec) -> None:
    student, teacher, label = golden_inputs()
    term = build_term(spec)
    shifted = term(outputs(student + 3.0), outputs(teacher - 7.0), label)
    assert shifted.item() == pytest.approx(term(outputs(student), outputs(teacher), label).item(), abs=1e-12)


@every_term
def test_a_teacher_run_in_inference_mode_serves_and_is_left_as_it_was(spec: DistillTermSpec) -> None:
    student, logits, label = golden_inputs()
    student = student.float().requires_grad_()
    with torch.inference_mode():
        teacher = logits.float() + 0.0
    build_term(spec)(outputs(student), outputs(teacher), label).backward()
    assert student.grad is not None
    assert torch.equal(teacher, logits.float())


@every_term
def test_auxiliary_logits_that_the_teacher_lacks_are_an_error_that_says_what_to_do(spec: DistillTermSpec) -> None:
    student, teacher, label = golden_inputs()
    term = build_term(spec.model_copy(update={"logits": "aux"}))
    with pytest.raises(InputError) as error:
        term(outputs(student, student), outputs(teacher), label)
    assert error.value.message == f"the distillation term '{spec.kind}' compares auxiliary logits, and this teacher has none"
    assert error.value.hint == "use a teacher trained with model.aux true, or leave the term out of distiller.terms"


def test_only_the_mean_over_valid_pixels_is_one() -> None:
    """KD averages over ignored pixels too, and a ratio of sums is no mean."""
    means = {spec.kind: build_term(spec).mean_over_pixels for spec in TERMS}
    assert means == {"kd": False, "soft_kl": True, "soft_jdt": False}


def test_every_field_of_the_metric_term_reaches_its_loss() -> None:
    spec = SoftJDTSpec(
        miou_d=0.1, miou_i=0.2, miou_c=0.3, alpha=0.4, beta=0.6, gamma=2.0, smooth=0.5, norm=2, log_loss=True, threshold=0.2,
        active="present",
    )  # fmt: skip
    loss = build_term(spec).loss
    assert isinstance(loss, JDTLoss)
    assert loss.active_soft == "present"
    for name in set(SoftJDTSpec.model_fields) - {"kind", "logits", "weight", "active"}:
        assert getattr(loss, name) == getattr(spec, name), name
