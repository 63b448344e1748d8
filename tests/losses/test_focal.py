"""Focal loss."""

import numpy as np
import pytest
import torch
from losses_reference import slow_focal

from segctl.errors import ArgumentError
from segctl.losses.cross_entropy import CrossEntropyLoss
from segctl.losses.focal import FocalLoss


def test_two_pixels_come_out_as_by_hand() -> None:
    logits = torch.tensor([[[0.75, 0.4], [0.25, 0.6]]]).log()
    by_hand = -(0.25**2 * np.log(0.75) + 0.4**2 * np.log(0.6)) / 2
    assert FocalLoss(gamma=2.0)(logits, torch.tensor([[0, 1]])).item() == pytest.approx(by_hand)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 0.0, 1.0]])
def test_it_agrees_with_the_slow_reference(gamma: float, soft: bool, weights: list[float] | None) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    label = torch.randn(2, 4, 3, 5).double().softmax(1) if soft else torch.randint(0, 4, (2, 3, 5))
    keep_mask = torch.rand(2, 3, 5) < 0.8
    expected = slow_focal(logits.numpy(), label.numpy(), keep_mask.numpy(), gamma, weights)
    assert FocalLoss(gamma, class_weights=weights)(logits, label, keep_mask).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("soft", [False, True])
def test_without_focus_it_is_cross_entropy(soft: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 9)
    label = torch.randn(2, 4, 9).softmax(1) if soft else torch.randint(0, 4, (2, 9))
    torch.testing.assert_close(FocalLoss(gamma=0.0)(logits, label), CrossEntropyLoss()(logits, label))


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_a_certain_prediction_has_a_finite_gradient(gamma: float) -> None:
    logits = torch.tensor([[[200.0, -200.0], [-200.0, 200.0]]], requires_grad=True)
    loss = FocalLoss(gamma)(logits, torch.tensor([[0, 0]]))
    assert loss.item() == pytest.approx(200.0)
    assert torch.autograd.grad(loss, logits)[0].isfinite().all()


def test_a_negative_exponent_is_refused() -> None:
    with pytest.raises(ArgumentError, match="FocalLoss got gamma -1, wanted at least 0"):
        FocalLoss(gamma=-1)
