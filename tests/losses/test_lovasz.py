"""Lovász-Softmax."""

from itertools import product
from typing import Any

import pytest
import torch
from losses_reference import slow_lovasz

from segctl.losses.lovasz import LovaszSoftmaxLoss


def test_two_pixels_come_out_as_by_hand() -> None:
    """Class 0: errors 0.4 (pixel 1, wrong) and 0.25 (pixel 0, missed); the loss of one wrong pixel is ½, of both 1."""
    logits, label = torch.tensor([[[0.75, 0.4], [0.25, 0.6]]], dtype=torch.float64).log(), torch.tensor([[0, 1]])
    class_0 = 0.4 * 0.5 + 0.25 * 0.5  # the ground truth has one pixel: one false positive makes 1/2
    class_1 = 0.4 * 1.0 + 0.25 * 0.0  # missing the only true pixel makes 1 at once
    assert LovaszSoftmaxLoss()(logits, label).item() == pytest.approx((class_0 + class_1) / 2, abs=1e-12)


@pytest.mark.parametrize("per_image", [False, True])
@pytest.mark.parametrize("active", ["present", "all"])
@pytest.mark.parametrize("space", [(), (7,), (3, 4)])
@pytest.mark.parametrize("masked", [False, True])
def test_it_agrees_with_the_slow_reference(per_image: bool, active: Any, space: tuple[int, ...], masked: bool) -> None:
    torch.manual_seed(len(space))
    logits, label = torch.randn(3, 4, *space, dtype=torch.float64), torch.randint(0, 3, (3, *space), dtype=torch.uint8)
    keep_mask = torch.rand(3, *space) < 0.8 if masked else None
    if keep_mask is not None and space:
        label[0] = 255
    expected = slow_lovasz(
        logits.numpy(), label.numpy(), None if keep_mask is None else keep_mask.numpy(), per_image=per_image, active=active
    )
    loss = LovaszSoftmaxLoss(per_image, active)
    assert loss(logits, label, keep_mask).item() == pytest.approx(expected, abs=1e-12)
    valid = (label != 255) & (keep_mask if keep_mask is not None else True)
    on_gpu = loss._without_waiting(logits.softmax(1).reshape(3, 4, -1), label.long().reshape(3, -1), valid.reshape(3, -1))
    assert on_gpu.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("per_image", [False, True])
def test_a_gpu_s_way_has_the_same_gradient(per_image: bool) -> None:
    torch.manual_seed(0)
    label = torch.randint(0, 3, (2, 30))
    label[0, :9] = 255
    p = torch.randn(2, 4, 30, dtype=torch.float64).softmax(1)
    p[0, :, 20] = torch.nn.functional.one_hot(label[0, 20], 4)  # an error of exactly 0, beside ignored pixels
    loss, gradients = LovaszSoftmaxLoss(per_image), []
    for way in ("cpu", "gpu"):
        logits = p.clamp(min=1e-300).log().requires_grad_()
        value = loss(logits, label) if way == "cpu" else loss._without_waiting(logits.softmax(1), label, label != 255)
        gradients.append(torch.autograd.grad(value, logits)[0])
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-14)


@pytest.mark.parametrize("predicted", list(product([0, 1], repeat=4)))
def test_on_certain_predictions_it_is_one_minus_the_iou(predicted: tuple[int, ...]) -> None:
    label = torch.tensor([[0, 0, 1, 1]])
    logits = 1000.0 * torch.nn.functional.one_hot(torch.tensor([predicted]), 2).permute(0, 2, 1).double()
    pairs = list(zip(predicted, label[0].tolist(), strict=True))
    ious = [sum(p == y == c for p, y in pairs) / sum(c in (p, y) for p, y in pairs) for c in (0, 1)]
    assert LovaszSoftmaxLoss()(logits, label).item() == pytest.approx(1 - sum(ious) / 2, abs=1e-12)


def test_batch_and_image_agree_on_a_batch_of_one() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(1, 4, 30), torch.randint(0, 4, (1, 30))
    torch.testing.assert_close(LovaszSoftmaxLoss(per_image=True)(logits, label), LovaszSoftmaxLoss()(logits, label))


def test_soft_labels_are_refused() -> None:
    with pytest.raises(ValueError, match="LovaszSoftmaxLoss got probabilities, wanted class ids") as error:
        LovaszSoftmaxLoss()(torch.zeros(1, 3, 4), torch.zeros(1, 3, 4))
    assert str(error.value).endswith("for soft labels use JDTLoss")


@pytest.mark.parametrize("wrong", [-1, 3])
def test_an_id_outside_the_classes_is_an_error(wrong: int) -> None:
    with pytest.raises(ValueError, match=f"label holds class id {wrong}, wanted 0 to 2 for 3 classes"):
        LovaszSoftmaxLoss()(torch.zeros(1, 3, 4), torch.full((1, 4), wrong))
