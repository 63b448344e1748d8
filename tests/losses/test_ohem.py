"""Cross-entropy over hard pixels alone."""

import math

import pytest
import torch
from losses_reference import slow_hard_pixels

from segctl.errors import ArgumentError
from segctl.losses.cross_entropy import CrossEntropyLoss
from segctl.losses.ohem import HardPixelLoss
from segctl.losses.pixels import log_likelihood


def four_pixels() -> tuple[torch.Tensor, torch.Tensor]:
    """All of class 0, with probabilities 0.9, 0.6, 0.3, 0.8."""
    p = torch.tensor([0.9, 0.6, 0.3, 0.8], dtype=torch.float64)
    return torch.stack([p, 1 - p]).log().unsqueeze(0), torch.zeros(1, 4, dtype=torch.long)


@pytest.mark.parametrize(
    ("threshold", "min_share", "taken"),
    [
        (0.7, 0.25, [0.3, 0.6]),
        (0.5, 0.25, [0.3]),
        (0.1, 0.25, [0.3]),
        (0.1, 0.75, [0.3, 0.6, 0.8]),
        (1.0, 0.25, [0.3, 0.6, 0.8, 0.9]),
    ],
)
def test_four_pixels_come_out_as_by_hand(threshold: float, min_share: float, taken: list[float]) -> None:
    loss = HardPixelLoss(threshold, min_share)(*four_pixels())
    assert loss.item() == pytest.approx(-sum(math.log(p) for p in taken) / len(taken), abs=1e-12)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("min_share", [1e-6, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("soft", [False, True])
def test_it_agrees_with_the_slow_reference(threshold: float, min_share: float, soft: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 3, 5, dtype=torch.float64)
    label = torch.randn(2, 4, 3, 5).double().softmax(1) if soft else torch.randint(0, 4, (2, 3, 5))
    keep_mask = torch.rand(2, 3, 5) < 0.8
    expected = slow_hard_pixels(logits.numpy(), label.numpy(), keep_mask.numpy(), threshold, min_share)
    loss = HardPixelLoss(threshold, min_share)
    assert loss(logits, label, keep_mask).item() == pytest.approx(expected, abs=1e-12)
    errors = -log_likelihood(logits, label, keep_mask)
    assert loss._mean_of_hard(errors.flatten(), keep_mask.flatten()).item() == pytest.approx(expected, abs=1e-12)


def test_without_a_valid_pixel_a_gpu_s_way_is_zero_too() -> None:
    errors = torch.rand(5, requires_grad=True)
    value = HardPixelLoss()._mean_of_hard(errors, torch.zeros(5, dtype=torch.bool))
    assert value.item() == 0
    assert torch.equal(torch.autograd.grad(value, errors)[0], torch.zeros(5))


def test_easy_pixels_get_no_gradient() -> None:
    logits, label = four_pixels()
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(HardPixelLoss(0.7, 0.25)(logits, label), logits)
    assert gradient[0].abs().sum(0).gt(0).tolist() == [False, True, True, False]


def test_every_pixel_is_cross_entropy() -> None:
    logits, label = four_pixels()
    torch.testing.assert_close(HardPixelLoss(min_share=1.0)(logits, label), CrossEntropyLoss()(logits, label))


@pytest.mark.parametrize(("threshold", "min_share"), [(0.0, 0.5), (1.5, 0.5), (0.5, 0.0)])
def test_shares_outside_their_range_are_refused(threshold: float, min_share: float) -> None:
    with pytest.raises(ArgumentError) as error:
        HardPixelLoss(threshold, min_share)
    wanted = "wanted both above 0 and at most 1"
    assert str(error.value) == f"HardPixelLoss got threshold {threshold}, min_share {min_share}, {wanted}"
