"""FitNet."""

import pytest
import torch
from distillers_golden import golden_features, outputs, pair_of

from segctl.distillers.fitnet import Hint, hint_distance
from segctl.schema.terms.distill_terms import HintSpec


def test_the_published_code_gives_the_same_number() -> None:
    """winycg/CIRKD, losses/fitnet.py at 2d8ad0f, with this convolution and these maps."""
    student, teacher = (outputs(maps) for maps in golden_features())
    term = Hint.of(HintSpec(), pair_of(student, teacher)).double()
    weight = 0.3 * torch.sin(0.7 * torch.arange(24, dtype=torch.float64) + 0.1)
    term.regressor.weight.data.copy_(weight.view(6, 4, 1, 1))
    label = torch.zeros(2, 6, 8, dtype=torch.int64)
    assert term(student, teacher, label).item() == pytest.approx(0.58554053, abs=1e-8)


def test_two_elements_come_out_as_by_hand() -> None:
    """(3² + 1²) / 2."""
    assert hint_distance(torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[[0.0, 2.0]]]])).item() == pytest.approx(5.0)


def test_the_convolution_learns_with_the_student_and_stands_between_equal_widths_too() -> None:
    student, _ = (outputs(maps) for maps in golden_features())
    term = Hint.of(HintSpec(), pair_of(student, student)).double()
    term(student, student, torch.zeros(2, 6, 8, dtype=torch.int64)).backward()
    assert [tuple(parameter.shape) for parameter in term.parameters()] == [(4, 4, 1, 1)]
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in term.parameters())
    assert "4 channels to the teacher's 4" in term.regressor.announcement
