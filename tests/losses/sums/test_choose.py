"""Which way a loss takes, and that `plain` turns the fast one off."""

import pytest
import torch
from torch import Tensor

from segctl.losses.jdt import JDTLoss
from segctl.losses.sums import choose
from segctl.losses.sums.choose import plain, sums_of
from segctl.losses.sums.plain import plain_sums


def batch() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(2, 3, 8, 8, requires_grad=True), torch.randint(0, 3, (2, 8, 8))


def is_fast(value: Tensor) -> bool:
    return value.grad_fn is not None and "BlockSums" in type(value.grad_fn).__name__


def test_the_fast_way_is_taken_by_itself_and_plain_turns_it_off_inside() -> None:
    logits, label = batch()
    assert is_fast(sums_of(logits, label, None, 1).predicted)
    with plain():
        assert not is_fast(sums_of(logits, label, None, 1).predicted)
    assert is_fast(sums_of(logits, label, None, 1).predicted)


def test_a_small_batch_takes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, label = batch()
    monkeypatch.setattr(choose, "WORTHWHILE", logits.numel() + 1)
    assert not is_fast(sums_of(logits, label, None, 1).predicted)
    monkeypatch.setattr(choose, "WORTHWHILE", logits.numel())
    assert is_fast(sums_of(logits, label, None, 1).predicted)


def test_plain_ends_with_its_block_even_by_an_error() -> None:
    with pytest.raises(RuntimeError), plain():
        raise RuntimeError
    assert is_fast(sums_of(*batch(), None, 1).predicted)


def test_a_label_that_learns_gets_its_gradient() -> None:
    logits, _ = batch()
    label = logits.detach().flip(0).softmax(1).requires_grad_()
    (gradient,) = torch.autograd.grad(JDTLoss()(logits, label), label)
    assert gradient.abs().sum() > 0


def test_torch_func_transforms_work_inside_plain() -> None:
    logits, label = batch()
    (wanted,) = torch.autograd.grad(JDTLoss()(logits, label), logits)
    with plain():
        found = torch.func.grad(lambda x: JDTLoss()(x, label))(logits.detach())
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("device", ["meta"])
def test_other_devices_take_the_plain_way(device: str) -> None:
    logits = torch.randn(2, 3, 8, 8, device=device)
    sums = sums_of(logits, torch.zeros(2, 8, 8, dtype=torch.long, device=device), None, 1)
    assert sums.predicted.shape == (2, 3)


@pytest.mark.parametrize("masked", [False, True])
def test_the_form_for_the_compiler_gives_the_same(masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    logits, label = batch()
    valid = torch.rand(2, 8, 8) < 0.7 if masked else None
    label = label if valid is None else label.masked_fill(~valid, 255)
    wanted = plain_sums(logits, label, valid, 1, with_log=True)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    torch.testing.assert_close(plain_sums(logits, label, valid, 1, with_log=True), wanted)
