"""Correlations by hand and against NumPy, and the groups of images they run over."""

import numpy as np
import pytest
import torch
from distillers_golden import golden_inputs, outputs

from segctl.distillers.dist import Relation, relation_distance


def test_it_is_what_numpys_correlation_gives() -> None:
    student, teacher, _ = golden_inputs()
    ours, theirs = (x.softmax(1).permute(0, 2, 3, 1).reshape(-1, 5).numpy() for x in (student, teacher))
    rows = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(ours, theirs, strict=True)])
    columns = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(ours.T, theirs.T, strict=True)])
    assert relation_distance(student, teacher, 1.0, 0.0).item() == pytest.approx(1 - rows, abs=1e-6)
    assert relation_distance(student, teacher, 0.0, 3.0).item() == pytest.approx(3 * (1 - columns), abs=1e-6)


def test_opposite_rankings_are_a_distance_of_two() -> None:
    teacher = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 1, 2)
    assert relation_distance(-teacher, teacher, 1.0, 0.0).item() == pytest.approx(2.0, abs=1e-6)


def test_equal_networks_are_next_to_nothing_apart() -> None:
    student, _, _ = golden_inputs()
    assert relation_distance(student, student, 1.0, 1.0).item() == pytest.approx(0.0, abs=1e-6)


def test_pixels_are_correlated_within_groups_of_two_images() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(4, 3, 4, 4), torch.randn(4, 3, 4, 4)
    label = torch.zeros(4, 8, 8, dtype=torch.long)
    found = Relation()(outputs(student), outputs(teacher), label)
    halves = [relation_distance(student[part], teacher[part], 1.0, 1.0) for part in (slice(0, 2), slice(2, 4))]
    torch.testing.assert_close(found, torch.stack(halves).mean())
    assert found.item() != pytest.approx(relation_distance(student, teacher, 1.0, 1.0).item(), abs=1e-6)


def test_a_constant_map_has_a_finite_gradient() -> None:
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    relation_distance(student, torch.zeros(2, 3, 4, 4), 1.0, 1.0).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
