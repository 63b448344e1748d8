"""Pixels and the means of their classes: by hand, and against loops over classes."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from segctl.distillers.ifvd import intra_class_variation


def slowly(features: NDArray[np.float64], label: NDArray[np.int64]) -> NDArray[np.float64]:
    """The cosine of every pixel with its class's mean, class by class; 1 where the label is ignored."""
    found = np.ones(label.shape)
    for image in range(len(label)):
        for name in set(label[image].ravel()) - {255}:
            where = label[image] == name
            pixels = features[image][:, where]
            mean = pixels.sum(1) / (where.sum() + 1e-6)
            found[image][where] = mean @ pixels / (np.linalg.norm(mean) * np.linalg.norm(pixels, axis=0))
    return found


def test_it_is_what_loops_over_classes_give() -> None:
    random = np.random.default_rng(0)
    student, teacher = random.normal(size=(3, 4, 5, 7)), random.normal(size=(3, 6, 5, 7))
    label = random.choice([0, 1, 2, 3, 255], size=(3, 5, 7))
    wanted = ((slowly(student, label) - slowly(teacher, label)) ** 2).mean()
    got = intra_class_variation(torch.tensor(student), torch.tensor(teacher), torch.tensor(label), num_classes=4)
    assert got.item() == pytest.approx(wanted, abs=1e-9)


def test_two_pixels_of_one_class_by_hand() -> None:
    label = torch.zeros(1, 1, 2, dtype=torch.long)
    teacher = torch.ones(1, 2, 1, 2)
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).view(1, 2, 1, 2)
    # student's mean is (1/2, 1/2): both cosines are 1/sqrt(2), the teacher's are 1
    assert intra_class_variation(student, teacher, label, 1).item() == pytest.approx((1 - 0.5**0.5) ** 2, abs=1e-6)


def test_ignored_pixels_add_no_error_but_count() -> None:
    label = torch.tensor([[[0, 0, 255, 255]]])
    teacher = torch.ones(1, 2, 1, 4)
    student = torch.tensor([[1.0, 0.0, 5.0, 6.0], [0.0, 1.0, -7.0, 8.0]]).view(1, 2, 1, 4)
    assert intra_class_variation(student, teacher, label, 3).item() == pytest.approx((1 - 0.5**0.5) ** 2 / 2, abs=1e-6)


def test_images_do_not_share_means() -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    label = torch.zeros(2, 4, 4, dtype=torch.long)
    apart = [intra_class_variation(student[i : i + 1], teacher[i : i + 1], label[i : i + 1], 1) for i in range(2)]
    together = intra_class_variation(student, teacher, label, 1)
    torch.testing.assert_close(together, torch.stack(apart).mean())


def test_the_gradient_flows_through_the_mean() -> None:
    torch.manual_seed(0)
    student, teacher = (
        torch.randn(1, 3, 2, 3, dtype=torch.float64, requires_grad=True),
        torch.randn(1, 3, 2, 3, dtype=torch.float64),
    )
    label = torch.tensor([[[0, 0, 1], [1, 0, 255]]])
    assert torch.autograd.gradcheck(lambda x: intra_class_variation(x, teacher, label, 2), (student,))
