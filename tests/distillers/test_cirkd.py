"""Rows of similarities: against the plain formula, in parts, and in groups of images."""

import pytest
import torch
from distillers_golden import golden_features, golden_inputs, outputs
from torch import Tensor
from torch.nn import functional as F

from segctl.distillers.cirkd import CrossImage, cross_image_similarity
from segctl.distillers.rows import plain
from segctl.distillers.rows.divergence import row_divergence


def plainly(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Every pair of images, its whole map at once, by torch's own functions."""
    ours, theirs = F.normalize(student.flatten(2), dim=1), F.normalize(teacher.flatten(2), dim=1)
    total, images = torch.zeros((), dtype=student.dtype), len(student)
    for i in range(images):
        for j in range(images):
            log_s = (ours[i].T @ ours[j] / temperature).log_softmax(1)
            p_t = (theirs[i].T @ theirs[j] / temperature).softmax(1)
            total = total + F.kl_div(log_s, p_t, reduction="batchmean")
    return total / images**2


@pytest.mark.parametrize("elements", [1, 100, 10**6])
def test_value_and_gradient_are_those_of_the_plain_formula(elements: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plain, "SIMILARITIES_AT_ONCE", elements)
    student, teacher = golden_features()
    student.requires_grad_()
    value = cross_image_similarity(student, teacher, 0.1)
    wanted = plainly(student, teacher, 0.1)
    assert value.item() == pytest.approx(wanted.item(), abs=1e-12)
    mine, theirs = (torch.autograd.grad(3 * loss, student)[0] for loss in (value, wanted))
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_the_gradient_is_that_of_small_steps() -> None:
    student, teacher = golden_features()
    small = student[:, :, :2, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: cross_image_similarity(x, teacher[:, :, :2, :3], 0.5), (small,))


@pytest.mark.parametrize(("images", "groups"), [(2, [2]), (4, [2, 2]), (5, [2, 3]), (1, [1])])
def test_a_batch_is_taken_in_groups(images: int, groups: list[int]) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(images, 3, 2, 3, dtype=torch.float64), torch.randn(images, 4, 2, 3, dtype=torch.float64)
    logits, _, label = golden_inputs()
    found = CrossImage()(outputs(logits, features=student), outputs(logits, features=teacher), label)
    wanted = sum(
        size / images * plainly(ours, theirs, 0.1)
        for size, ours, theirs in zip(groups, student.split(groups), teacher.split(groups), strict=True)
    )
    torch.testing.assert_close(found, wanted)


def test_no_rows_are_no_loss() -> None:
    rows, keys = torch.zeros(0, 3, requires_grad=True), torch.eye(3).unsqueeze(0)
    value = row_divergence(rows, keys, rows, keys, 0.1)
    value.backward()
    assert value.item() == 0
