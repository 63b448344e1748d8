"""The fast sums against the plain ones: value and gradient, over every option, layout, precision and order of derivative."""

import random
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from segctl.losses.jdt import JDTLoss
from segctl.losses.sums import fast, threads
from segctl.losses.sums.choose import plain
from segctl.losses.sums.fast import block_sums
from segctl.losses.sums.plain import Sums, plain_sums


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def many_blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks of a few pixels, with and without threads of Python."""
    before = torch.get_num_threads()
    monkeypatch.setattr(fast, "BLOCK_ELEMENTS", 40)
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def draw_case(seed: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Logits in float64, a hard or soft label, a mask or none."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    batch, num_classes = draw.choice([1, 2, 3]), draw.choice([2, 3, 7, 19])
    space = draw.choice([(), (6,), (7, 5), (2, 3, 5)])
    logits = torch.randn(batch, num_classes, *space, dtype=torch.float64) * draw.choice([0.1, 1, 5])
    valid = torch.rand(batch, *space) < 0.7 if draw.random() < 0.6 else None
    if draw.random() < 0.5:
        return logits, torch.randn(logits.shape, dtype=torch.float64).softmax(1), valid
    label = torch.randint(0, num_classes, (batch, *space)).to(draw.choice([torch.uint8, torch.int32, torch.int64]))
    return logits, label if valid is None else label.masked_fill(~valid, 255 if label.dtype == torch.uint8 else -1), valid


def gradient(sums: Sums, logits: Tensor, weights: list[Tensor]) -> Tensor:
    parts = (sums.intersection, sums.predicted, sums.log_likelihood)
    total = torch.stack([(part * weight).sum() for part, weight in zip(parts, weights, strict=True)]).sum()
    return torch.autograd.grad(total, logits)[0]


@pytest.mark.usefixtures("many_blocks")
@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("with_log", [False, True])
def test_sums_and_gradient_are_the_plain_ones(norm: int, with_log: bool) -> None:
    for seed in range(12):
        logits, label, valid = draw_case(seed)
        logits.requires_grad_()
        weights = [torch.randn(logits.shape[:2], dtype=torch.float64) for _ in range(3)]
        fast, slow = (take(logits, label, valid, norm, with_log) for take in (block_sums, plain_sums))
        torch.testing.assert_close(fast, slow, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(gradient(fast, logits, weights), gradient(slow, logits, weights), rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("many_blocks")
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lower_precisions_give_sums_in_float32_and_gradients_in_their_own(soft: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 5, 9, 11).to(dtype).requires_grad_()
    label = torch.randn(2, 5, 9, 11).softmax(1).to(dtype) if soft else torch.randint(0, 5, (2, 9, 11))
    same = logits.detach().float().requires_grad_()
    fast, slow = block_sums(logits, label, None, 1, True), plain_sums(same, label, None, 1, True)
    assert {part.dtype for part in fast} == {torch.float32}
    torch.testing.assert_close(fast, slow, rtol=1e-5, atol=1e-5)
    weights = [torch.randn(2, 5) for _ in range(3)]
    found, wanted = gradient(fast, logits, weights), gradient(slow, same, weights)
    assert found.dtype == dtype
    torch.testing.assert_close(found, wanted.to(dtype))


@pytest.mark.usefixtures("many_blocks")
@pytest.mark.parametrize("soft", [False, True])
def test_any_memory_layout_gives_the_same_and_a_channels_last_gradient_stays_so(soft: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 6, 8, 9)
    label = torch.randn(2, 6, 8, 9).softmax(1) if soft else torch.randint(0, 6, (2, 8, 9))
    layouts = {
        "rows": logits,
        "channels last": logits.contiguous(memory_format=torch.channels_last),
        "turned": logits.transpose(2, 3).contiguous().transpose(2, 3),
        "a view": torch.cat([logits, logits], 1)[:, :6],
    }
    gradients = {}
    for name, laid in layouts.items():
        laid.requires_grad_()
        (gradients[name],) = torch.autograd.grad(JDTLoss()(laid, label), laid)
        torch.testing.assert_close(gradients[name], gradients["rows"])
    assert gradients["channels last"].is_contiguous(memory_format=torch.channels_last)


def test_one_pixel_in_all_layouts_of_a_broadcast() -> None:
    logits = torch.tensor([0.9, 0.1]).log().view(1, 2, 1, 1).expand(1, 2, 3, 4).detach().requires_grad_()
    fast = torch.autograd.grad(JDTLoss()(logits, torch.zeros(1, 3, 4, dtype=torch.uint8)), logits)[0]
    with plain():
        slow = torch.autograd.grad(JDTLoss()(logits, torch.zeros(1, 3, 4, dtype=torch.uint8)), logits)[0]
    torch.testing.assert_close(fast, slow)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("norm", [1, 2])
def test_a_second_backward_pass_gives_the_same_gradient_again(soft: bool, norm: int) -> None:
    """The first one turns the kept softmax into the gradient, in place."""
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 30, requires_grad=True)
    label = torch.randn(2, 4, 30).softmax(1) if soft else torch.randint(0, 4, (2, 30))
    value = JDTLoss(norm=norm)(logits, label)
    first = torch.autograd.grad(value, logits, retain_graph=True)[0]
    kept = first.clone()
    torch.testing.assert_close(torch.autograd.grad(value, logits)[0], first)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("with_log", [False, True])
def test_second_derivatives_are_those_of_the_first(soft: bool, with_log: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    label = torch.randn(1, 3, 4, dtype=torch.float64).softmax(1) if soft else torch.randint(0, 3, (1, 4))

    def value(x: Tensor) -> Tensor:
        sums = block_sums(x, label, None, 2, with_log)
        return (sums.intersection / sums.predicted).sum() + sums.log_likelihood.square().sum()

    assert torch.autograd.gradcheck(value, (logits,))
    assert torch.autograd.gradgradcheck(value, (logits,))


def test_nothing_but_the_logits_is_kept_when_there_is_nothing_to_differentiate() -> None:
    logits, label = torch.randn(1, 3, 4), torch.randint(0, 3, (1, 4))
    assert not block_sums(logits, label, None, 1, False).intersection.requires_grad
    with torch.no_grad():
        assert not JDTLoss()(logits.requires_grad_(), label).requires_grad


@pytest.mark.usefixtures("many_blocks")
def test_it_runs_in_inference_mode() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(2, 3, 50), torch.randint(0, 3, (2, 50))
    expected = JDTLoss()(logits, label).item()
    with torch.inference_mode():
        assert JDTLoss()(logits.clone(), label).item() == expected


@pytest.mark.usefixtures("many_blocks")
@pytest.mark.parametrize("soft", [False, True])
def test_autocast_changes_neither_value_nor_gradient(soft: bool) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 50, requires_grad=True)
    label = torch.randn(2, 3, 50).softmax(1) if soft else torch.randint(0, 3, (2, 50))
    expected = JDTLoss(smooth=1.0)(logits, label)
    (wanted,) = torch.autograd.grad(expected, logits)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = JDTLoss(smooth=1.0)(logits, label)
        (found,) = torch.autograd.grad(value, logits)
    assert value.item() == expected.item()
    assert torch.equal(found, wanted)


@pytest.mark.usefixtures("many_blocks")
def test_the_number_of_threads_is_left_as_it_was_also_after_an_error() -> None:
    before = torch.get_num_threads()
    JDTLoss()(torch.randn(2, 3, 50), torch.randint(0, 3, (2, 50)))
    assert torch.get_num_threads() == before
    with pytest.raises(RuntimeError, match="out of bounds"):
        block_sums(torch.randn(2, 3, 50), torch.full((2, 50), 77), None, 1, False)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("workers", [1, 2])
def test_every_piece_of_work_is_done_once(workers: int) -> None:
    before, done = torch.get_num_threads(), []
    torch.set_num_threads(workers)
    threads.share_out(lambda queue: done.extend(queue), range(100), torch.device("cpu"))
    torch.set_num_threads(before)
    assert sorted(done) == list(range(100))


@pytest.mark.parametrize("seed", range(0, 20, 4))
def test_threads_and_blocks_do_not_change_a_digit_from_run_to_run(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fast, "BLOCK_ELEMENTS", 40)
    logits, label, valid = draw_case(seed)
    before, sums = torch.get_num_threads(), []
    for workers in (1, 2, 2):
        torch.set_num_threads(workers)
        sums.append(block_sums(logits.float(), label, valid, 1, True))
    torch.set_num_threads(before)
    for other in sums[1:]:
        assert all(torch.equal(one, two) for one, two in zip(sums[0], other, strict=True))


@pytest.mark.gpu
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_gpu_gives_what_the_plain_way_gives(soft: bool, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 19, 64, 64, device="cuda").to(dtype).requires_grad_()
    label = torch.randn(2, 19, 64, 64).softmax(1).cuda() if soft else torch.randint(0, 19, (2, 64, 64)).cuda()
    fast, slow = (take(logits, label, None, 1, True) for take in (block_sums, plain_sums))
    torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-3)
    weights = [torch.randn(2, 19, device="cuda") for _ in range(3)]
    torch.testing.assert_close(gradient(fast, logits, weights), gradient(slow, logits, weights), rtol=1e-3, atol=1e-3)
