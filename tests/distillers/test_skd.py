"""The pairwise term by hand."""

import pytest
import torch

from segctl.distillers.skd import pairwise_similarity


def test_two_positions_by_hand() -> None:
    # teacher: two orthogonal features; student: two parallel ones of other lengths and more channels
    teacher = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).view(1, 2, 1, 2)
    student = torch.tensor([[1.0, 3.0], [0.0, 0.0], [2.0, 6.0]]).view(1, 3, 1, 2)
    # similarities: teacher [[1, 0], [0, 1]], student [[1, 1], [1, 1]]: two of four differ by 1
    assert pairwise_similarity(student, teacher, pool=1).item() == pytest.approx(0.5)


def test_the_window_takes_the_largest_and_reaches_over_the_edge() -> None:
    maps = torch.arange(1.0, 7.0).view(1, 1, 2, 3)
    other = torch.cat([maps, -maps], dim=1)
    # 2×2 windows over 3 columns: two nodes, the second of one column; one channel alone has cosine 1 everywhere
    assert pairwise_similarity(maps, other, pool=2).item() > 0
    assert pairwise_similarity(maps, maps * 5, pool=2).item() == pytest.approx(0.0, abs=1e-12)


def test_constant_norms_change_the_gradient_and_not_the_value() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 5, 4, 4)
    gradients = []
    for through in (True, False):
        value = pairwise_similarity(student, teacher, 2, norm_gradient=through)
        gradients.append(torch.autograd.grad(value, student)[0])
    assert not torch.allclose(gradients[0], gradients[1])
    # through the norms, a longer feature is the same feature
    assert (gradients[0] * student).sum().item() == pytest.approx(0.0, abs=1e-6)


def test_an_all_zero_feature_has_a_finite_gradient() -> None:
    student = torch.zeros(1, 3, 4, 4, requires_grad=True)
    pairwise_similarity(student, torch.randn(1, 3, 4, 4), 2).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
