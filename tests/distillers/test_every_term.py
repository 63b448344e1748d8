"""What holds for every distillation term."""

from typing import get_args

import pytest
import torch
from distillers_golden import golden_inputs, golden_pair, outputs
from torch import Tensor, nn

from segctl.distillers import Distiller, NamedTerm, build_term
from segctl.errors import InputError
from segctl.schema.terms.distill_terms import (
    AdversarialSpec,
    ChannelFeaturesSpec,
    ChannelSpec,
    CrossChannelSpec,
    CrossImageSpec,
    DecoupledSpec,
    DistillTermSpec,
    HintSpec,
    IntraClassSpec,
    LogitsTerm,
    MaskedGenerationSpec,
    MaskedSpec,
    MemorySpec,
    OmniContrastSpec,
    PairwiseSpec,
    PixelKLSpec,
    RelationSpec,
    SoftJDTSpec,
    SoftKLSpec,
    StandardisedSpec,
)
from tests.slow_cases import slow_where

SMALL_QUEUES = {"pixel_slots": 40, "region_slots": 10, "pixel_samples": 20, "region_samples": 10}
TERMS: list[DistillTermSpec] = [
    PixelKLSpec(),
    PixelKLSpec(temperature=4.0),
    PairwiseSpec(),
    PairwiseSpec(pool=0.5, norm_gradient=False),
    AdversarialSpec(),
    AdversarialSpec(loss="wgan_gp"),
    IntraClassSpec(),
    ChannelSpec(),
    ChannelFeaturesSpec(),
    ChannelFeaturesSpec(divide_by="compared"),
    ChannelFeaturesSpec(divide_by="student"),
    CrossImageSpec(),
    MemorySpec(**SMALL_QUEUES),
    MemorySpec(queue="fixed", **SMALL_QUEUES),
    MaskedSpec(tokens=3),
    RelationSpec(),
    SoftKLSpec(),
    SoftKLSpec(temperature=4.0),
    SoftJDTSpec(smooth=1.0),
    SoftJDTSpec(alpha=0.5, beta=0.5, miou_d=0.0, miou_c=1.0),
]
KINDS = get_args(get_args(DistillTermSpec)[0])
TERMS += [kind() for kind in KINDS if not any(isinstance(spec, kind) for spec in TERMS)]  # one that is new needs no line here
GENERATING = MaskedGenerationSpec | OmniContrastSpec
PROJECTED = HintSpec | MemorySpec | CrossChannelSpec | GENERATING
IDENTICAL_IS_ZERO = [spec for spec in TERMS if not isinstance(spec, AdversarialSpec | RelationSpec | PROJECTED)]
"""Not the discriminator's game; not behind a projector or a generator; and DIST only up to its epsilon."""

SHIFTED = PixelKLSpec | RelationSpec | SoftKLSpec | SoftJDTSpec | DecoupledSpec | StandardisedSpec


def ids(specs: list[DistillTermSpec]) -> list[str]:
    return [f"{spec.kind}-{index}" for index, spec in enumerate(specs)]


every_term = pytest.mark.parametrize("spec", TERMS, ids=ids(TERMS))
WITH_SLOW = slow_where(TERMS, lambda spec: isinstance(spec, AdversarialSpec))
every_cheap_term = pytest.mark.parametrize("spec", WITH_SLOW, ids=ids(TERMS))


def term_of(spec: DistillTermSpec) -> nn.Module:
    torch.manual_seed(0)
    return build_term(spec, golden_pair()).double()


def value_of(term: nn.Module, student: Tensor, teacher: Tensor, label: Tensor) -> Tensor:
    """The sum of a term's values for the student; the discriminator's own is not among them."""
    found = term(outputs(student), outputs(teacher), label)
    if isinstance(found, Tensor):
        return found
    return torch.stack([value for name, value in found.items() if name != "discriminator"]).sum()


@every_term
def test_it_is_a_finite_scalar_with_gradient_to_the_student_and_none_to_the_teacher(spec: DistillTermSpec) -> None:
    student, teacher, label = golden_inputs()
    student.requires_grad_()
    teacher.requires_grad_()
    value = value_of(term_of(spec), student, teacher, label)
    value.backward()
    assert value.shape == ()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


@every_cheap_term
def test_steps_against_its_gradient_lower_it(spec: DistillTermSpec) -> None:
    start, teacher, label = golden_inputs()
    term, values, student = term_of(spec), [], start.clone().requires_grad_()
    # A generator must learn before the student's features can help it.
    learning = [student, *(term.parameters() if isinstance(spec, GENERATING) else [])]
    optimizer = torch.optim.Adam(learning, lr=0.05)
    for _ in range(30 if not isinstance(spec, AdversarialSpec) else 3):
        optimizer.zero_grad()
        value = value_of(term, student, teacher, label)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.95 * values[0]


@pytest.mark.parametrize("spec", IDENTICAL_IS_ZERO, ids=ids(IDENTICAL_IS_ZERO))
def test_it_is_zero_when_student_equals_teacher(spec: DistillTermSpec) -> None:
    student, _, label = golden_inputs()
    assert value_of(term_of(spec), student, student, label).item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("spec", [spec for spec in TERMS if isinstance(spec, SHIFTED)])
def test_a_shift_of_all_of_a_pixels_logits_changes_nothing(spec: DistillTermSpec) -> None:
    student, teacher, label = golden_inputs()
    term = term_of(spec)
    shifted = value_of(term, student + 3.0, teacher - 7.0, label)
    assert shifted.item() == pytest.approx(value_of(term, student, teacher, label).item(), abs=1e-12)


@every_term
def test_a_teacher_run_in_inference_mode_serves_and_is_left_as_it_was(spec: DistillTermSpec) -> None:
    student, logits, label = golden_inputs()
    student = student.float().requires_grad_()
    with torch.inference_mode():
        teacher = logits.float() + 0.0
    value_of(term_of(spec).float(), student, teacher, label).backward()
    assert student.grad is not None
    assert torch.equal(teacher, logits.float())


@every_term
def test_networks_in_half_precision_are_compared_in_float32(spec: DistillTermSpec) -> None:
    student, teacher, label = golden_inputs()
    student = student.bfloat16().requires_grad_()
    weight = dict.fromkeys(spec.part_weights(), 1.0) or 1.0
    distiller = Distiller([NamedTerm("term", weight, term_of(spec).float())])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = distiller(outputs(student), outputs(teacher.bfloat16()), label)
    assert {value.dtype for value in values.values()} == {torch.float32}
    torch.stack(list(values.values())).sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@every_cheap_term
def test_under_autocast_a_term_is_near_float64(spec: DistillTermSpec) -> None:
    """For outputs that networks have rounded to bf16. Terms compute in float32, so no more is lost."""
    student, teacher, label = golden_inputs()
    weight = dict.fromkeys(spec.part_weights(), 1.0) or 1.0
    found = []
    for dtype, own in ((torch.float64, torch.float64), (torch.bfloat16, torch.float32)):
        torch.manual_seed(0)
        distiller = Distiller([NamedTerm("term", weight, term_of(spec).to(own))])
        ours, theirs = (maps.bfloat16().to(dtype) for maps in (student, teacher))
        ours.requires_grad_()
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            values = distiller(outputs(ours), outputs(theirs), label)
        torch.stack(list(values.values())).sum().backward()
        assert ours.grad is not None
        found.append((values, ours.grad.double()))
    (exact, slope), (values, mine) = found
    for name, value in values.items():
        assert float(value.detach()) == pytest.approx(float(exact[name]), rel=1e-4, abs=1e-6), name
    # The gradient itself is rounded to bf16, whose steps are 1/256.
    assert (mine - slope).norm() <= 0.01 * slope.norm() + 1e-8


@every_term
def test_a_teacher_on_a_coarser_grid_is_resized(spec: DistillTermSpec) -> None:
    student, teacher, label = golden_inputs()
    student.requires_grad_()
    value = value_of(term_of(spec), student, teacher[:, :, ::2, ::2].contiguous(), label)
    value.backward()
    assert value.isfinite()


@every_term
def test_a_batch_without_a_valid_pixel_gives_finite_gradients(spec: DistillTermSpec) -> None:
    student, teacher, label = golden_inputs()
    student.requires_grad_()
    value = value_of(term_of(spec), student, teacher, torch.full_like(label, 255))
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("spec", [spec for spec in TERMS if isinstance(spec, LogitsTerm)])
def test_auxiliary_logits_that_the_teacher_lacks_are_an_error_that_says_what_to_do(spec: LogitsTerm) -> None:
    student, teacher, label = golden_inputs()
    term = term_of(spec.model_copy(update={"logits": "aux"}))
    with pytest.raises(InputError) as error:
        term(outputs(student, student), outputs(teacher), label)
    assert error.value.message == f"the distillation term '{spec.kind}' compares auxiliary logits, and this teacher has none"
    assert error.value.hint == "use a teacher trained with model.aux true, or leave the term out of distiller.terms"


@every_term
def test_it_says_how_parts_of_a_batch_add_up_and_its_values_have_weights(spec: DistillTermSpec) -> None:
    student, teacher, label = golden_inputs()
    term = term_of(spec)
    found = term(outputs(student), outputs(teacher), label)
    assert isinstance(term.mean_over_pixels, bool)
    assert set(spec.part_weights()) == (set(found) if isinstance(found, dict) else set())


@every_term
def test_its_formula_has_a_line_for_each_value_that_the_student_learns_from(spec: DistillTermSpec) -> None:
    assert len(spec.formula()) == max(1, len(spec.part_weights()) - isinstance(spec, AdversarialSpec))
