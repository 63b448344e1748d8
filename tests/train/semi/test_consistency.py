"""The formulas of semi-supervised learning, by hand."""

import math

import pytest
import torch

from segctl.train.semi.fixmatch import pseudo_label_loss
from segctl.train.semi.mean_teacher import divergence, ramp, squared_difference
from segctl.train.semi.pseudo_labels import Target, target_of, with_pasted

REAL = torch.ones(1, 1, 2, dtype=torch.bool)


def of_pixels(*probabilities: list[float]) -> torch.Tensor:
    """(1, C, 1, W) of a row of pixels."""
    return torch.tensor(probabilities).T.reshape(1, len(probabilities[0]), 1, len(probabilities))


STUDENT = of_pixels([0.5, 0.5], [0.25, 0.75]).log()
TEACHER = of_pixels([0.9, 0.1], [0.4, 0.6])


def test_fixmatch_by_hand():
    """The first pixel is sure of class 0, where the student has 0.5; the second is not, and counts in the mean as 0."""
    assert float(pseudo_label_loss(STUDENT, target_of(TEACHER, REAL, 0.8))) == pytest.approx(math.log(2) / 2)
    everywhere = (math.log(2) - math.log(0.75)) / 2
    assert float(pseudo_label_loss(STUDENT, target_of(TEACHER, REAL, 0.0))) == pytest.approx(everywhere)
    assert float(pseudo_label_loss(STUDENT, target_of(TEACHER, REAL, 0.95))) == 0


def test_the_threshold_itself_is_sure():
    assert target_of(of_pixels([0.75, 0.25], [0.5, 0.5]), REAL, 0.75).counted.flatten().tolist() == [True, False]


def test_mean_teacher_by_hand():
    target = target_of(TEACHER, REAL, 0.0)
    assert float(squared_difference(STUDENT, target)) == pytest.approx((0.4**2 + 0.15**2) / 2)
    first = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)
    second = 0.4 * math.log(0.4 / 0.25) + 0.6 * math.log(0.6 / 0.75)
    assert float(divergence(STUDENT, target)) == pytest.approx((first + second) / 2)


def test_padding_is_no_part_of_the_mean_and_gets_no_gradient():
    """One real pixel of two: the mean is that pixel's value, and the gradient of the other is 0."""
    real = torch.tensor([[[True, False]]])
    logits = STUDENT.clone().requires_grad_()
    for loss in (pseudo_label_loss, squared_difference, divergence):
        value = loss(logits, target_of(TEACHER, real, 0.0))
        alone = loss(STUDENT[..., :1], target_of(TEACHER[..., :1], real[..., :1], 0.0))
        assert value.item() == pytest.approx(alone.item())
        (gradient,) = torch.autograd.grad(value, logits)
        assert gradient[..., 1].abs().max() == 0
    nothing = target_of(TEACHER, torch.zeros_like(real), 0.0)
    assert all(float(loss(STUDENT, nothing)) == 0 for loss in (pseudo_label_loss, squared_difference, divergence))


def test_a_certain_teacher_gives_finite_numbers():
    certain = Target(of_pixels([1.0, 0.0], [0.0, 1.0]), REAL, REAL)
    logits = torch.tensor([[[[100.0, 100.0]], [[-100.0, -100.0]]]])
    for loss in (pseudo_label_loss, squared_difference, divergence):
        assert math.isfinite(float(loss(logits, certain)))


def test_a_pasted_rectangle_brings_the_other_pictures_answer():
    pasted = torch.tensor([[[False, True]]])
    mixed = with_pasted(TEACHER, TEACHER.flip(1), pasted)
    assert mixed.flatten().tolist() == pytest.approx([0.9, 0.6, 0.1, 0.4])
    assert with_pasted(TEACHER, None, None) is TEACHER


def test_the_ramp_is_that_of_its_paper():
    assert ramp(0, 100, 0.5) == pytest.approx(math.exp(-5))
    assert ramp(25, 100, 0.5) == pytest.approx(math.exp(-1.25))
    assert ramp(50, 100, 0.5) == 1
    assert ramp(0, 100, 0.0) == 1
