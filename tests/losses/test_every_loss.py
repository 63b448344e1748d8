"""What holds for every loss: finite, with a gradient, blind to ignored pixels, and 0 where nothing is left."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from segctl.errors import ArgumentError
from segctl.losses import (
    CrossEntropyLoss,
    FocalLoss,
    HardPixelLoss,
    JDTLoss,
    KLLoss,
    Loss,
    LovaszSoftmaxLoss,
    SoftDiceLoss,
    SoftJaccardLoss,
)
from segctl.losses.sums import choose

LOSSES: dict[str, tuple[Loss, bool]] = {
    "cross_entropy hard": (CrossEntropyLoss(ignore_index=255), False),
    "cross_entropy soft": (CrossEntropyLoss(), True),
    "cross_entropy weighted": (CrossEntropyLoss(class_weights=[0.5, 1.0, 2.0, 3.0]), False),
    "cross_entropy soft weighted": (CrossEntropyLoss(class_weights=[0.5, 1.0, 2.0, 3.0]), True),
    "focal hard": (FocalLoss(class_weights=[0.5, 1.0, 2.0, 3.0]), False),
    "focal soft": (FocalLoss(gamma=1.5), True),
    "ohem hard": (HardPixelLoss(), False),
    "ohem soft": (HardPixelLoss(threshold=0.1, min_share=0.5), True),
    "lovasz": (LovaszSoftmaxLoss(), False),
    "lovasz per image, all classes": (LovaszSoftmaxLoss(per_image=True, active="all"), False),
    "soft jaccard hard": (SoftJaccardLoss(), False),
    "soft jaccard soft": (SoftJaccardLoss(per_image=True), True),
    "soft dice hard, per image": (SoftDiceLoss(per_image=True), False),
    "soft dice soft, all classes": (SoftDiceLoss(active="all"), True),
    "kl": (KLLoss(temperature=2.0), True),
    "jaccard hard": (JDTLoss(ignore_index=255), False),
    "jaccard soft": (JDTLoss(), True),
    "tversky hard, by image and class": (JDTLoss(0.0, 0.5, 0.5, alpha=0.3, beta=0.7, ignore_index=255), False),
    "log dice soft": (JDTLoss(alpha=0.5, beta=0.5, log_loss=True, smooth=1.0), True),
}
every_loss = pytest.mark.parametrize(("loss", "soft"), LOSSES.values(), ids=LOSSES.keys())


def batch(soft: bool, *space: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (2, 4, *D), a label with about a quarter of the pixels ignored, and the mask of the others."""
    torch.manual_seed(0)
    logits, valid = torch.randn(2, 4, *space), torch.rand(2, *space) < 0.75
    if soft:
        return logits, torch.randn(2, 4, *space).softmax(1).masked_fill(~valid.unsqueeze(1), 0.0), valid
    return logits, torch.randint(0, 4, (2, *space)).masked_fill(~valid, 255), valid


def value_and_gradient(loss: Loss, logits: Tensor, label: Tensor, keep_mask: Tensor) -> tuple[Tensor, Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, label, keep_mask)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@every_loss
def test_it_is_a_finite_scalar_with_a_gradient(loss: Loss, soft: bool) -> None:
    for space in ((), (9,), (5, 6), (3, 4, 2)):
        value, gradient = value_and_gradient(loss, *batch(soft, *space))
        assert value.shape == (), space
        assert value.isfinite(), space
        assert value > 0, space
        assert gradient.isfinite().all(), space
        assert gradient.abs().sum() > 0, space


@every_loss
def test_logits_at_ignored_pixels_change_neither_value_nor_gradient(loss: Loss, soft: bool) -> None:
    logits, label, valid = batch(soft, 5, 6)
    other = torch.where(valid.unsqueeze(1), logits, -3 * logits.flip(1))
    value, gradient = value_and_gradient(loss, logits, label, valid)
    other_value, other_gradient = value_and_gradient(loss, other, label, valid)
    assert other_value == value
    torch.testing.assert_close(other_gradient, gradient, rtol=0, atol=0)
    assert (gradient.masked_fill(valid.unsqueeze(1), 0.0) == 0).all()


@every_loss
def test_an_all_ignored_batch_gives_zero_and_a_zero_gradient(loss: Loss, soft: bool) -> None:
    logits, label, valid = batch(soft, 5, 6)
    nothing = torch.zeros_like(label) if soft else torch.full_like(label, 255)
    value, gradient = value_and_gradient(loss, logits, nothing, torch.zeros_like(valid))
    assert value == 0
    assert (gradient == 0).all()


@every_loss
def test_the_memory_layout_does_not_matter(loss: Loss, soft: bool) -> None:
    logits, label, valid = batch(soft, 5, 6)
    packed = logits.contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(loss(packed, label, valid), loss(logits, label, valid))


@every_loss
def test_half_precision_gives_a_float32_value_and_a_gradient_of_its_own_type(loss: Loss, soft: bool) -> None:
    logits, label, valid = batch(soft, 5, 6)
    for dtype in (torch.float16, torch.bfloat16):
        value, gradient = value_and_gradient(loss, logits.to(dtype), label, valid)
        assert value.dtype == torch.float32
        assert gradient.dtype == dtype
        torch.testing.assert_close(value, loss(logits.to(dtype).float(), label, valid))


@every_loss
def test_the_gradient_is_that_of_the_value(loss: Loss, soft: bool) -> None:
    logits, label, valid = batch(soft, 2, 3)
    label = label.double() if soft else label
    assert torch.autograd.gradcheck(lambda x: loss(x, label, valid), (logits.double().requires_grad_(),))


@every_loss
def test_a_label_of_another_size_is_refused(loss: Loss, soft: bool) -> None:
    logits, label, _ = batch(soft, 5, 6)
    with pytest.raises(ValueError, match="wanted"):
        loss(logits, label[..., :5])


@every_loss
def test_wrong_arguments_are_value_errors_that_the_command_line_can_word(loss: Loss, soft: bool) -> None:
    logits, label, valid = batch(soft, 5, 6)
    for wrong in ((logits, label[..., :5]), (logits, label, valid.float()), (logits.long(), label), (logits[0, 0], label)):
        with pytest.raises(ArgumentError, match="wanted") as error:
            loss(*wrong)
        assert isinstance(error.value, ValueError)
        assert error.value.exit_code == 2


@pytest.mark.parametrize("loss", [loss for loss, soft in LOSSES.values() if not soft])
@pytest.mark.parametrize(("wrong", "dtype"), [(-1, torch.int64), (4, torch.uint8), (254, torch.int16)])
def test_a_class_id_outside_the_classes_is_a_value_error(loss: Loss, wrong: int, dtype: torch.dtype) -> None:
    logits, label, valid = batch(False, 5, 6)
    label = label.to(dtype)
    label[0, 2, 3] = wrong
    valid[0, 2, 3] = True
    with pytest.raises(ArgumentError, match=f"label holds class id {wrong}, wanted 0 to 3 for 4 classes, first at .0, 2, 3. of"):
        loss(logits, label, valid)
    valid[0, 2, 3] = False
    assert loss(logits, label, valid).isfinite()  # a masked pixel may hold any id


@every_loss
def test_one_channel_is_refused_because_its_softmax_is_always_one(loss: Loss, soft: bool) -> None:
    label = torch.rand(2, 1, 5, 6) if soft else torch.zeros(2, 5, 6, dtype=torch.long)
    with pytest.raises(ArgumentError, match="wanted at least two channels: softmax over one class is always 1"):
        loss(torch.zeros(2, 1, 5, 6, requires_grad=True), label)


@every_loss
def test_an_empty_batch_is_refused_in_words(loss: Loss, soft: bool) -> None:
    for shape in ((0, 4, 5, 6), (2, 4, 0, 6)):
        label = torch.zeros(shape) if soft else torch.zeros(shape[0], *shape[2:], dtype=torch.long)
        with pytest.raises(ArgumentError, match="the batch is empty: logits are"):
            loss(torch.zeros(shape, requires_grad=True), label)


@every_loss
def test_what_stands_at_a_masked_pixel_never_reaches_value_or_gradient(
    loss: Loss, soft: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits, label, valid = batch(soft, 5, 6)
    masked = ~valid.unsqueeze(1)
    for worthwhile in (0, 1 << 20):
        monkeypatch.setattr(choose, "WORTHWHILE", worthwhile)
        wanted = value_and_gradient(loss, logits, label, valid)
        for bad in (float("nan"), float("inf")):
            changed = label.masked_fill(masked, bad) if soft else label
            found = value_and_gradient(loss, logits.masked_fill(masked, bad), changed, valid)
            torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("loss", [loss for loss, soft in LOSSES.values() if not soft])
def test_every_integer_type_gives_the_same(loss: Loss) -> None:
    logits, label, valid = batch(False, 5, 6)
    label = label.masked_fill(~valid, 3)  # int8 has no 255
    wanted = loss(logits, label, valid)
    for dtype in (torch.uint8, torch.int8, torch.uint16, torch.int16, torch.uint32, torch.int32, torch.uint64):
        assert torch.equal(loss(logits, label.to(dtype), valid), wanted), dtype


CONSTRUCTORS: list[tuple[Callable[[], Loss], str]] = [
    (lambda: CrossEntropyLoss(class_weights=[1.0, -1.0]), "CrossEntropyLoss got class_weights with a number below 0"),
    (lambda: FocalLoss(class_weights=[[1.0]]), r"FocalLoss got class_weights of shape \(1, 1\), wanted one number"),
    (lambda: FocalLoss(gamma=float("nan")), "FocalLoss got gamma nan, wanted at least 0"),
    (lambda: HardPixelLoss(threshold=0.0), "HardPixelLoss got threshold 0.0"),
    (lambda: JDTLoss(gamma=0.5), "JDTLoss got gamma 0.5"),
    (lambda: KLLoss(temperature=0.0), "KLLoss got temperature 0.0, wanted above 0"),
    (lambda: LovaszSoftmaxLoss(active="some"), "LovaszSoftmaxLoss got active 'some', wanted 'present' or 'all'"),
    (lambda: SoftJaccardLoss(smooth=-1.0), "SoftJaccardLoss got smooth -1.0, wanted at least 0"),
    (lambda: SoftDiceLoss(active="none"), "SoftDiceLoss got active 'none', wanted 'present' or 'all'"),
]


@pytest.mark.parametrize(("make", "message"), CONSTRUCTORS)
def test_a_wrong_setting_is_a_value_error(make: Callable[[], Loss], message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as error:
        make()
    assert isinstance(error.value, ValueError)


@every_loss
def test_a_loss_says_how_parts_of_a_batch_add_up(loss: Loss, soft: bool) -> None:
    assert isinstance(loss.mean_over_pixels, bool)


@every_loss
def test_a_pixel_of_the_batch_can_be_any_of_it(loss: Loss, soft: bool) -> None:
    logits, label, valid = batch(soft, 30)
    order = torch.randperm(30)
    shuffled = loss(logits[..., order], label[..., order], valid[..., order])
    torch.testing.assert_close(shuffled, loss(logits, label, valid), rtol=1e-5, atol=1e-6)


@every_loss
def test_autocast_changes_nothing(loss: Loss, soft: bool) -> None:
    logits, label, valid = batch(soft, 5, 6)
    expected = loss(logits, label, valid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(loss(logits, label, valid), expected)


@pytest.mark.slow
@every_loss
def test_it_compiles(loss: Loss, soft: bool) -> None:
    logits, label, valid = batch(soft, 5, 6)
    torch._dynamo.reset()
    compiled = torch.compile(loss, backend="eager")
    torch.testing.assert_close(compiled(logits, label, valid), loss(logits, label, valid))
