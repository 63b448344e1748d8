"""LSKD on pixels."""

import statistics

import pytest
import torch
from distillers_golden import golden_inputs, outputs

from segctl.distillers.newer.lskd import Standardised, standardised


@pytest.mark.parametrize(("temperature", "wanted"), [(2.0, 0.73973173), (1.0, 0.65613986)])
def test_the_authors_code_gives_the_same_number(temperature: float, wanted: float) -> None:
    """mdistiller/distillers/KD.py of sunshangquan/logit-standardization-KD at f6e5aa5, each pixel a sample."""
    student, teacher, label = golden_inputs()
    found = Standardised(temperature=temperature)(outputs(student), outputs(teacher), label)
    assert found.item() == pytest.approx(wanted, abs=1e-8)


def test_each_pixels_logits_are_standardised_as_by_the_statistics_module() -> None:
    logits = golden_inputs()[0]
    found = standardised(logits)
    for image, row, column in ((0, 0, 0), (1, 5, 7), (0, 3, 2)):
        values = logits[image, :, row, column].tolist()
        mean, deviation = statistics.mean(values), statistics.stdev(values)
        wanted = [(value - mean) / (1e-7 + deviation) for value in values]
        assert found[image, :, row, column].tolist() == pytest.approx(wanted, rel=1e-12)


def test_two_classes_come_out_as_by_hand() -> None:
    """Mean 2, deviation √2 (divided by one): -1/√2 and 1/√2."""
    found = standardised(torch.tensor([1.0, 3.0], dtype=torch.float64).view(1, 2, 1, 1)).flatten().tolist()
    assert found == pytest.approx([-(0.5**0.5), 0.5**0.5], abs=1e-6)


def test_larger_and_shifted_logits_are_the_same_to_it() -> None:
    student, teacher, label = golden_inputs()
    term = Standardised()
    value = term(outputs(student), outputs(teacher), label).item()
    assert term(outputs(5 * student + 3), outputs(0.1 * teacher - 7), label).item() == pytest.approx(value, rel=1e-5)


def test_equal_logits_at_a_pixel_give_finite_gradients() -> None:
    student, teacher, label = golden_inputs()
    flat = torch.zeros_like(student).requires_grad_()
    Standardised()(outputs(flat), outputs(teacher), label).backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()
