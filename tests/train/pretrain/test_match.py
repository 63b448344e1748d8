"""Distances of features, by slow references and by hand."""

import numpy as np
import pytest
import torch

from segctl.train.pretrain.match import Adapter, cosine_distance, distance, standardised_distance


def test_the_cosine_of_two_places_by_hand() -> None:
    student = torch.tensor([[[[3.0, 1.0]], [[4.0, 0.0]]]])  # two channels, places (3, 4) and (1, 0)
    teacher = torch.tensor([[[[6.0, 0.0]], [[8.0, 2.0]]]])  # parallel to the first, at a right angle to the second
    assert cosine_distance(student, teacher).item() == pytest.approx(1 - (1 + 0) / 2)


def test_the_references_agree() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(2, 5, 3, 4, generator=generator) for _ in range(2))
    s, t = (x.permute(0, 2, 3, 1).reshape(-1, 5).numpy().astype(np.float64) for x in (student, teacher))
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(s, t, strict=True)]
    assert cosine_distance(student, teacher).item() == pytest.approx(1 - np.mean(cosines), abs=1e-6)
    normed = (t - t.mean(1, keepdims=True)) / np.sqrt(t.var(1, keepdims=True) + 1e-5)
    assert standardised_distance(student, teacher).item() == pytest.approx(((s - normed) ** 2).mean(), abs=1e-5)


@pytest.mark.parametrize("method", ["cosine", "mse", "cwd"])
def test_gradients_reach_the_student_alone(method: str) -> None:
    student, teacher = torch.randn(2, 4, 3, 3, requires_grad=True), torch.randn(2, 4, 3, 3, requires_grad=True)
    value = distance(method, student, teacher)
    assert value.shape == ()
    torch.autograd.backward(value)
    assert student.grad is not None
    assert student.grad.abs().sum() > 0
    assert teacher.grad is None


@pytest.mark.parametrize(("kind", "layers"), [("linear", 1), ("mlp", 2)])
def test_the_adapter_brings_channels_to_the_teachers(kind: str, layers: int) -> None:
    adapter = Adapter(4, 7, kind)
    assert adapter(torch.zeros(2, 4, 3, 5)).shape == (2, 7, 3, 5)
    assert sum(isinstance(layer, torch.nn.Conv2d) for layer in adapter) == layers


@pytest.mark.parametrize("method", ["cosine", "mse", "cwd"])
def test_places_that_are_padding_change_nothing(method: str) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(1, 4, 3, 5, generator=generator) for _ in range(2))
    seen = torch.ones(1, 3, 5, dtype=torch.bool)
    seen[:, :, 3:] = False
    inside = distance(method, student[..., :3], teacher[..., :3])
    torch.testing.assert_close(distance(method, student, teacher, seen), inside)
    student[..., 3:] = 9
    torch.testing.assert_close(distance(method, student, teacher, seen), inside)
