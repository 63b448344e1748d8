"""KL(label || prediction) over the valid pixels."""

import numpy as np
import pytest
import torch
from losses_reference import golden_inputs, slow_cross_entropy, slow_kl

from segctl.losses.kl import KLLoss


def test_two_pixels_come_out_as_by_hand() -> None:
    """The first pixel agrees with its label and costs nothing, the second has a one-hot label."""
    logits = torch.tensor([[[0.75, 0.4], [0.25, 0.6]]]).log()
    label = torch.tensor([[[0.75, 0.0], [0.25, 1.0]]])
    assert KLLoss()(logits, label).item() == pytest.approx(-np.log(0.6) / 2)


def test_golden_mean_over_valid_pixels() -> None:
    student, teacher, label = golden_inputs()
    assert KLLoss()(student, teacher.softmax(1), label != 5).item() == pytest.approx(2.24799810, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("space", [(), (7,), (3, 4), (2, 3, 2)])
def test_it_agrees_with_the_slow_reference(temperature: float, space: tuple[int, ...]) -> None:
    torch.manual_seed(len(space))
    logits = torch.randn(3, 4, *space, dtype=torch.float64)
    label = torch.randn(3, 4, *space).double().softmax(1)
    keep_mask = torch.rand(3, *space) < 0.8
    expected = slow_kl(logits.numpy(), label.numpy(), keep_mask.numpy(), temperature)
    assert KLLoss(temperature)(logits, label, keep_mask).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_zero_where_the_prediction_is_the_label(temperature: float) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 30)
    loss = KLLoss(temperature)(logits, (logits / temperature).softmax(1))
    assert loss.item() == pytest.approx(0.0, abs=1e-6)


def test_it_is_cross_entropy_without_the_entropy_of_the_labels() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 4, 9, dtype=torch.float64), torch.randn(2, 4, 9).double().softmax(1)
    everywhere = np.ones((2, 9), dtype=bool)
    entropy = -(label * label.log()).sum(1).mean().item()
    expected = slow_cross_entropy(logits.numpy(), label.numpy(), None, everywhere) - entropy
    assert KLLoss()(logits, label).item() == pytest.approx(expected, abs=1e-12)


def test_probabilities_of_zero_on_either_side_leave_value_and_gradient_finite() -> None:
    logits = torch.tensor([[[200.0, 0.0], [-200.0, 0.0]]], requires_grad=True)
    label = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]], requires_grad=True)
    loss = KLLoss()(logits, label)
    for gradient in torch.autograd.grad(loss, (logits, label)):
        assert gradient.isfinite().all()
    assert loss.item() == pytest.approx(np.log(2) / 2)


def test_the_gradient_is_that_of_the_value() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    label, keep_mask = torch.randn(2, 3, 4).double().softmax(1), torch.rand(2, 4) < 0.8
    assert torch.autograd.gradcheck(lambda x: KLLoss(2.0)(x, label, keep_mask), (logits,))


def test_hard_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="KLLoss got class ids, wanted probabilities") as error:
        KLLoss()(torch.zeros(1, 3, 4), torch.zeros(1, 4, dtype=torch.long))
    assert str(error.value).endswith("for hard labels use CrossEntropyLoss")
