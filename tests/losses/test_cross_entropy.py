"""Cross-entropy over the valid pixels, hard and soft."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from losses_reference import golden_inputs, slow_cross_entropy

from segctl.losses.cross_entropy import CrossEntropyLoss


def test_two_pixels_come_out_as_by_hand() -> None:
    logits = torch.tensor([[[0.75, 0.4], [0.25, 0.6]]]).log()
    assert CrossEntropyLoss()(logits, torch.tensor([[0, 1]])).item() == pytest.approx(-(np.log(0.75) + np.log(0.6)) / 2)


def test_golden_mean_over_valid_pixels() -> None:
    student, _, label = golden_inputs()
    assert CrossEntropyLoss(ignore_index=5)(student, label).item() == pytest.approx(2.88200614, abs=1e-6)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("space", [(), (7,), (3, 4), (2, 3, 2)])
def test_it_agrees_with_the_slow_reference(soft: bool, space: tuple[int, ...]) -> None:
    torch.manual_seed(len(space))
    logits = torch.randn(3, 4, *space, dtype=torch.float64)
    label = torch.randn(3, 4, *space).double().softmax(1) if soft else torch.randint(0, 4, (3, *space))
    keep_mask = torch.rand(3, *space) < 0.8
    if not soft:
        label[torch.rand(3, *space) < 0.2] = 255
    expected = slow_cross_entropy(logits.numpy(), label.numpy(), 255, keep_mask.numpy())
    assert CrossEntropyLoss()(logits, label, keep_mask).item() == pytest.approx(expected, abs=1e-12)


def test_hard_labels_agree_with_torch() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 5, 8, 8), torch.randint(0, 5, (2, 8, 8))
    label[0, :3] = 255
    torch.testing.assert_close(CrossEntropyLoss()(logits, label), F.cross_entropy(logits, label, ignore_index=255))


def test_hard_labels_equal_their_one_hot_form() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 5, 30), torch.randint(0, 5, (2, 30))
    one_hot, keep_mask = F.one_hot(label, 5).permute(0, 2, 1).float(), torch.rand(2, 30) < 0.5
    torch.testing.assert_close(CrossEntropyLoss()(logits, one_hot, keep_mask), CrossEntropyLoss()(logits, label, keep_mask))


def test_a_class_with_probability_zero_does_not_spoil_a_soft_label_without_it() -> None:
    logits = torch.tensor([[[0.0], [-1e30], [0.0]]], requires_grad=True)
    label = torch.tensor([[[1.0], [0.0], [0.0]]])
    loss = CrossEntropyLoss()(logits, label)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(np.log(2))
    assert gradient.isfinite().all()


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_class_weights_make_a_weighted_mean(soft: bool, masked: bool) -> None:
    torch.manual_seed(0)
    logits, weights = torch.randn(3, 4, 3, 5, dtype=torch.float64), [0.5, 2.0, 0.0, 1.0]
    label = torch.randn(3, 4, 3, 5).double().softmax(1) if soft else torch.randint(0, 4, (3, 3, 5))
    keep_mask = torch.rand(3, 3, 5) < 0.8 if masked else None
    expected = slow_cross_entropy(logits.numpy(), label.numpy(), 255, keep_mask.numpy() if masked else None, weights)
    loss = CrossEntropyLoss(class_weights=torch.tensor(weights, dtype=torch.float64))
    assert loss(logits, label, keep_mask).item() == pytest.approx(expected, abs=1e-12)


def test_weighted_hard_labels_agree_with_torch() -> None:
    torch.manual_seed(0)
    logits, label, weights = torch.randn(2, 5, 8, 8), torch.randint(0, 5, (2, 8, 8)), torch.rand(5)
    label[0, :3] = 255
    expected = F.cross_entropy(logits, label, weights, ignore_index=255)
    torch.testing.assert_close(CrossEntropyLoss(class_weights=weights)(logits, label), expected)


def test_class_weights_are_a_buffer_and_of_the_right_number() -> None:
    loss = CrossEntropyLoss(class_weights=[1.0, 2.0])
    assert [name for name, _ in loss.named_buffers()] == ["class_weights"]
    with pytest.raises(ValueError, match="class_weights has 2 numbers, wanted 3, one for each class of the logits"):
        loss(torch.zeros(1, 3, 4), torch.zeros(1, 4, dtype=torch.long))


def test_a_label_of_weight_zero_alone_costs_nothing() -> None:
    logits = torch.randn(1, 2, 4, requires_grad=True)
    loss = CrossEntropyLoss(class_weights=[0.0, 1.0])(logits, torch.zeros(1, 4, dtype=torch.long))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, logits)[0].abs().sum() == 0
