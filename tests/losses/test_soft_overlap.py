"""Soft Jaccard and soft Dice: equal to the metric losses on hard labels, and why they are baselines on soft ones."""

from typing import Any

import pytest
import torch
from losses_reference import slow_overlap

from segctl.losses.jdt import JDTLoss
from segctl.losses.soft_overlap import SoftDiceLoss, SoftJaccardLoss

BOTH = pytest.mark.parametrize(("kind", "dice"), [(SoftJaccardLoss, False), (SoftDiceLoss, True)])


def test_two_pixels_come_out_as_by_hand() -> None:
    logits, label = torch.tensor([[[0.75, 0.4], [0.25, 0.6]]], dtype=torch.float64).log(), torch.tensor([[0, 1]])
    jaccard, dice = 0.75 / 1.4 + 0.6 / 1.25, 1.5 / 2.15 + 1.2 / 1.85
    assert SoftJaccardLoss(smooth=0.0)(logits, label).item() == pytest.approx(1 - jaccard / 2, abs=1e-12)
    assert SoftDiceLoss(smooth=0.0)(logits, label).item() == pytest.approx(1 - dice / 2, abs=1e-12)


@BOTH
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("active", ["present", "all"])
@pytest.mark.parametrize("smooth", [0.0, 1.0])
def test_they_agree_with_the_slow_reference(
    kind: Any, dice: bool, soft: bool, per_image: bool, active: Any, smooth: float
) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    label = torch.randn(2, 4, 3, 5).double().softmax(1) if soft else torch.randint(0, 3, (2, 3, 5))
    keep_mask = torch.rand(2, 3, 5) < 0.8
    expected = slow_overlap(
        logits.numpy(), label.numpy(), keep_mask.numpy(), dice=dice, per_image=per_image, smooth=smooth, active=active
    )
    loss = kind(per_image, smooth, active)
    assert loss(logits, label, keep_mask).item() == pytest.approx(expected, abs=1e-12)


@BOTH
@pytest.mark.parametrize("active", ["present", "all"])
def test_on_hard_labels_they_are_the_metric_losses(kind: Any, dice: bool, active: Any) -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 4, 30), torch.randint(0, 3, (2, 30))
    half = 0.5 if dice else 1.0
    metric = JDTLoss(alpha=half, beta=half, smooth=0.0 if dice else 1.0, active_hard=active)
    torch.testing.assert_close(kind(smooth=0.0 if dice else 1.0, active=active)(logits, label), metric(logits, label))


@BOTH
def test_on_soft_labels_certainty_is_cheaper_than_the_truth_and_the_metric_loss_disagrees(kind: Any, dice: bool) -> None:
    label = torch.tensor([[[0.9, 0.1], [0.1, 0.9]]])
    truth, certain = label.log(), torch.tensor([[[0.999, 0.001], [0.001, 0.999]]]).log()
    assert kind()(certain, label) < kind()(truth, label)
    half = 0.5 if dice else 1.0
    metric = JDTLoss(alpha=half, beta=half)
    assert metric(certain, label) > metric(truth, label)
    assert metric(truth, label).item() == pytest.approx(0.0, abs=1e-6)
