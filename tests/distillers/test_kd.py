"""Pixel-wise KD at head stride."""

import numpy as np
import pytest
import torch
from distillers_golden import golden_inputs, outputs

from segctl.distillers.kd import PixelKL, pixel_kl
from segctl.models.outputs import upsample


@pytest.mark.parametrize(("temperature", "value"), [(1.0, 2.31053966), (4.0, 3.98854981)])
def test_golden_values(temperature: float, value: float) -> None:
    student, teacher, _ = golden_inputs()
    assert pixel_kl(student, teacher, temperature).item() == pytest.approx(value, abs=1e-6)


def test_two_pixels_come_out_as_by_hand() -> None:
    """The first pixel agrees; at the second the teacher says (½, ½) and the student (¼, ¾)."""
    teacher = torch.tensor([[[[0.75, 0.5]], [[0.25, 0.5]]]]).log()
    student = torch.tensor([[[[0.75, 0.25]], [[0.25, 0.75]]]]).log()
    by_hand = (0.5 * np.log(0.5 / 0.25) + 0.5 * np.log(0.5 / 0.75)) / 2
    assert pixel_kl(student, teacher, 1.0).item() == pytest.approx(by_hand, abs=1e-6)


def test_confident_logits_leave_value_and_gradient_finite() -> None:
    student = torch.tensor([[[[300.0]], [[-300.0]]]], requires_grad=True)
    loss = pixel_kl(student, -student.detach(), 1.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == pytest.approx(600.0)
    assert gradient.isfinite().all()


def test_half_precision_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 4).half(), torch.randn(2, 3, 4, 4).half()
    assert pixel_kl(student, teacher, 1.0).item() == pixel_kl(student.float(), teacher.float(), 1.0).item()


def test_the_gradient_is_that_of_the_value() -> None:
    torch.manual_seed(0)
    student = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    teacher = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: pixel_kl(x, teacher, 2.0), (student,))


def test_it_compares_logits_at_head_stride_ignored_pixels_included() -> None:
    student, teacher, _ = golden_inputs()
    everything_ignored = torch.full((2, 48, 64), 255)
    loss = PixelKL()(outputs(student, size=(48, 64)), outputs(teacher, size=(48, 64)), everything_ignored)
    assert loss.item() == pytest.approx(2.31053966, abs=1e-6)


def test_a_teacher_of_another_head_stride_is_resized_to_the_student() -> None:
    student, teacher, label = golden_inputs()
    finer = upsample(teacher, (12, 16))
    expected = pixel_kl(student, upsample(finer, (6, 8)), 4.0)
    assert PixelKL(temperature=4.0)(outputs(student), outputs(finer), label).item() == expected.item()
