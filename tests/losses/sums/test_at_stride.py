"""The sums of logits at head stride against torch's upsampling and the plain sums: value and gradient, over every option."""

import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.losses.sums import at_stride
from segctl.losses.sums.at_stride import SoftAtStride, stride_sums
from segctl.losses.sums.choose import plain, sums_at_stride
from segctl.losses.sums.plain import Sums, plain_sums
from tests.slow_cases import slow_after

KINDS = ("hard", "soft", "teacher")


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def many_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks of a row or two, with and without threads of Python."""
    before = torch.get_num_threads()
    monkeypatch.setattr(at_stride, "STRIDE_BLOCK_ELEMENTS", 1 << 7)
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def upsampled(maps: Tensor, size: tuple[int, int], align_corners: bool = False) -> Tensor:
    return F.interpolate(maps, size, mode="bilinear", align_corners=align_corners)


def draw_case(seed: int, kind: str) -> tuple[Tensor, Tensor, tuple[int, int], Tensor | None]:
    """Logits in float64 at head stride, a label, the label's size, and a mask or none; sizes that no stride divides."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    batch, classes = draw.choice([1, 2, 3]), draw.choice([2, 3, 7])
    grid, size = draw.choice([((1, 1), (5, 7)), ((3, 5), (24, 40)), ((4, 3), (29, 23)), ((5, 2), (11, 6))])
    logits = torch.randn(batch, classes, *grid, dtype=torch.float64) * draw.choice([0.1, 1, 5])
    valid = torch.rand(batch, *size) < 0.7 if draw.random() < 0.6 else None
    if kind == "teacher":
        return logits, torch.randn(batch, classes, *draw.choice([grid, (2, 4)]), dtype=torch.float64) * 3, size, valid
    if kind == "soft":
        return logits, torch.randn(batch, classes, *size, dtype=torch.float64).softmax(1), size, valid
    label = torch.randint(0, classes, (batch, *size)).to(draw.choice([torch.uint8, torch.int32, torch.int64]))
    return logits, label if valid is None else label.masked_fill(~valid, 255 if label.dtype == torch.uint8 else -1), size, valid


def both(
    logits: Tensor, label: Tensor, size: tuple[int, int], valid: Tensor | None, kind: str, norm: int = 1, corners: bool = False
) -> tuple[Sums, Sums]:
    """The sums at head stride, and those of torch's own operations."""
    found = stride_sums(logits, SoftAtStride(label) if kind == "teacher" else label, size, valid, norm, True, corners)
    at_size = upsampled(label, size, corners).softmax(1) if kind == "teacher" else label
    return found, plain_sums(upsampled(logits, size, corners), at_size, valid, norm, True)


def gradient(sums: Sums, logits: Tensor) -> Tensor:
    """The gradient of an arbitrary combination of the three sums that have one."""
    torch.manual_seed(1)
    parts = (sums.intersection, sums.predicted, sums.log_likelihood)
    total = torch.stack([(part * torch.randn(part.shape, dtype=part.dtype)).sum() for part in parts]).sum()
    return torch.autograd.grad(total, logits, retain_graph=True)[0]


@pytest.mark.usefixtures("many_blocks")
@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("corners", slow_after([False, True]))
@pytest.mark.parametrize("kind", KINDS)
def test_sums_and_gradient_are_those_of_upsampling_first(kind: str, corners: bool, norm: int) -> None:
    for seed in range(6):
        logits, label, size, valid = draw_case(seed, kind)
        logits.requires_grad_()
        found, wanted = both(logits, label, size, valid, kind, norm, corners)
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)
        torch.testing.assert_close(gradient(found, logits), gradient(wanted, logits), rtol=1e-11, atol=1e-11)


def test_two_pixels_by_hand() -> None:
    """One row, two columns of logits (0, 0) and (log 9, 0), four columns of labels: the weights are 1, ¾, ¼, 0."""
    logits = torch.tensor([[0.0, 9.0], [0.0, 1.0]]).clamp(min=1).log().view(1, 2, 1, 2).requires_grad_()
    sums = stride_sums(logits, torch.zeros(1, 1, 4, dtype=torch.long), (1, 4), None, 1, True)
    first = [9**part / (9**part + 1) for part in (0.0, 0.25, 0.75, 1.0)]
    torch.testing.assert_close(sums.predicted, torch.tensor([[sum(first), 4 - sum(first)]]))
    torch.testing.assert_close(sums.intersection, torch.tensor([[sum(first), 0.0]]))
    torch.testing.assert_close(sums.log_likelihood, torch.tensor(first).log().sum().view(1, 1) * torch.tensor([[1.0, 0.0]]))


@pytest.mark.usefixtures("many_blocks")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lower_precisions_give_sums_in_float32_and_gradients_in_their_own(kind: str, dtype: torch.dtype) -> None:
    logits, label, size, valid = draw_case(3, kind)
    logits = logits.to(dtype).requires_grad_()
    label = label.to(dtype).float() if label.is_floating_point() else label
    same = logits.detach().double().requires_grad_()
    found = both(logits, label, size, valid, kind)[0]
    wanted = both(same, label.double() if label.is_floating_point() else label, size, valid, kind)[1]
    assert {part.dtype for part in found} == {torch.float32}
    torch.testing.assert_close(found, Sums(*(part.float() for part in wanted)), rtol=1e-5, atol=1e-4)
    ours, theirs = gradient(found, logits), gradient(wanted, same)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, theirs.to(dtype), rtol=1e-2 if dtype != torch.float32 else 1e-4, atol=1e-4)


@pytest.mark.parametrize("apart", [1.0, 150.0, 1e4, 1e30])
def test_neighbours_that_are_sure_of_different_classes_leave_no_class_without_probability(apart: float) -> None:
    """Between them every class is far below the largest logit at head stride, and 2 to that power is 0."""
    logits = torch.tensor([[apart, 0.0, 0.0], [0.0, apart, 0.0], [0.0, 0.0, 0.0]]).view(1, 3, 1, 3).requires_grad_()
    label = torch.randint(0, 3, (1, 4, 24))
    found, wanted = both(logits, label, (4, 24), None, "hard")
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient(found, logits), gradient(wanted, logits), rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("many_blocks")
@pytest.mark.parametrize("kind", KINDS)
def test_all_pixels_ignored_give_zeros_and_no_gradient(kind: str) -> None:
    logits, label, size, _ = draw_case(1, kind)
    valid = torch.zeros(len(logits), *size, dtype=torch.bool)
    sums = both(logits.requires_grad_(), label, size, valid, kind)[0]
    assert all(not part.any() for part in sums)
    assert not gradient(sums, logits).any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_second_backward_pass_and_second_derivatives_are_right(kind: str) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    soft = torch.randn(1, 3, 4, 5, dtype=torch.float64).softmax(1)
    label = {"hard": torch.randint(0, 3, (1, 4, 5)), "soft": soft, "teacher": torch.randn(1, 3, 2, 2).double()}[kind]

    def value(x: Tensor) -> Tensor:
        sums = both(x, label, (4, 5), None, kind, norm=2)[0]
        return (sums.intersection / sums.predicted).sum() + sums.log_likelihood.square().sum()

    assert torch.autograd.gradcheck(value, (logits,))
    assert torch.autograd.gradgradcheck(value, (logits,))
    sums = both(logits, label, (4, 5), None, kind)[0]
    assert torch.equal(gradient(sums, logits), gradient(sums, logits))


@pytest.mark.parametrize("kind", KINDS)
def test_threads_do_not_change_a_digit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(at_stride, "STRIDE_BLOCK_ELEMENTS", 1 << 7)
    logits, label, size, valid = draw_case(2, kind)
    logits = logits.float().requires_grad_()
    before, found = torch.get_num_threads(), []
    for workers in (1, 2, 2):
        torch.set_num_threads(workers)
        sums = both(logits, label, size, valid, kind)[0]
        found.append((*sums, gradient(sums, logits)))
    torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(one, two) for one, two in zip(found[0], other, strict=True))


def test_logits_and_teachers_of_inference_mode_are_taken() -> None:
    logits, label, size, valid = draw_case(1, "teacher")
    wanted = both(logits, label, size, valid, "teacher")[1]
    with torch.inference_mode():
        label = label.clone()
        torch.testing.assert_close(both(logits, label, size, valid, "teacher")[0], wanted)
    assert gradient(both(logits.requires_grad_(), label, size, valid, "teacher")[0], logits).any()


def test_autocast_changes_no_digit() -> None:
    logits, label, size, valid = draw_case(2, "teacher")
    logits = logits.float().requires_grad_()
    sums = both(logits, label.float(), size, valid, "teacher")[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = both(logits, label.float(), size, valid, "teacher")[0]
        found = gradient(again, logits)
    assert all(torch.equal(one, two) for one, two in zip(sums, again, strict=True))
    assert torch.equal(found, gradient(sums, logits))


def test_where_upsampling_first_is_better_there_are_no_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, label, size = torch.randn(1, 4, 16, 16), torch.zeros(1, 128, 128, dtype=torch.long), (128, 128)

    def taken(logits: Tensor = logits, size: tuple[int, int] = size, label: Tensor | SoftAtStride = label) -> bool:
        return sums_at_stride(logits, label, size, None, 1) is not None

    assert taken()
    with plain():
        assert not taken()
    assert not taken(logits=torch.full_like(logits, torch.nan))
    assert not taken(logits=logits.to("meta"))
    assert not taken(size=(31, 64))
    assert not taken(label=torch.rand(1, 4, 128, 128, requires_grad=True))
    assert not taken(label=SoftAtStride(torch.randn(1, 5, 16, 16)))
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    assert not taken()
