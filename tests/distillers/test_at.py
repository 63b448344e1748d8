"""Attention transfer."""

import pytest
import torch
from distillers_golden import golden_features

from segctl.distillers.at import attention_distance


def test_the_published_code_gives_the_same_number() -> None:
    """winycg/CIRKD, losses/at.py at 2d8ad0f, on the same maps."""
    assert attention_distance(*golden_features()).item() == pytest.approx(0.00373532, abs=1e-8)


def test_two_pixels_come_out_as_by_hand() -> None:
    """All of the student's attention is on the first pixel, all of the teacher's on the second: (1² + 1²) / 2."""
    student, teacher = torch.tensor([[[[3.0, 0.0]]]]), torch.tensor([[[[0.0, 5.0]]]])
    assert attention_distance(student, teacher).item() == pytest.approx(1.0)


def test_it_is_the_plain_loop_over_images_and_positions() -> None:
    student, teacher = golden_features()
    total = 0.0
    for mine, other in zip(student, teacher, strict=True):
        maps = [[sum(float(layer[row, column]) ** 2 for layer in net) / len(net) for row in range(6) for column in range(8)]
                for net in (mine, other)]  # fmt: skip
        ours, theirs = ([value / sum(x * x for x in values) ** 0.5 for value in values] for values in maps)
        total += sum((a - b) ** 2 for a, b in zip(ours, theirs, strict=True)) / 48
    assert attention_distance(student, teacher).item() == pytest.approx(total / 2, rel=1e-12)


def test_maps_of_zero_teach_nothing_and_break_nothing() -> None:
    student = torch.zeros(1, 2, 3, 3, requires_grad=True)
    value = attention_distance(student, torch.rand(1, 4, 3, 3))
    value.backward()
    assert value.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
