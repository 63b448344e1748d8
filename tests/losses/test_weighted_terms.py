"""Terms read together give what each gives alone, and share one softmax where they can."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.errors import ArgumentError
from segctl.losses import (
    CrossEntropyLoss,
    FocalLoss,
    JDTLoss,
    KLLoss,
    Loss,
    LossTerms,
    LovaszSoftmaxLoss,
    NamedLoss,
    SoftDiceLoss,
    weighted_terms,
)
from segctl.schema.terms.loss_terms import Output

HARD: list[Loss] = [CrossEntropyLoss(), JDTLoss(smooth=1.0, ignore_index=255), LovaszSoftmaxLoss(), FocalLoss(), SoftDiceLoss()]
SOFT: list[Loss] = [KLLoss(), CrossEntropyLoss(), JDTLoss(ignore_index=255), JDTLoss(norm=2, ignore_index=255), KLLoss(2.0)]
WEIGHTED: list[Loss] = [
    CrossEntropyLoss(class_weights=[1.0, 2.0, 0.5, 3.0]),
    JDTLoss(0.0, 0.5, 0.5, ignore_index=255, class_weights=[1.0, 2.0, 0.5, 3.0]),
    JDTLoss(alpha=0.5, beta=0.5, ignore_index=255),
]


def named(losses: list[Loss], output: Output = "main") -> LossTerms:
    return LossTerms([NamedLoss(f"{number}", output, 1.0, loss) for number, loss in enumerate(losses)])


def batch(soft: bool) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    logits, valid = torch.randn(2, 4, 5, 6, dtype=torch.float64, requires_grad=True), torch.rand(2, 5, 6) < 0.75
    if soft:
        return logits, torch.randn(2, 4, 5, 6).double().softmax(1).masked_fill(~valid.unsqueeze(1), 0.0), valid
    return logits, torch.randint(0, 4, (2, 5, 6)).masked_fill(~valid, 255), valid


@pytest.mark.parametrize(("losses", "soft"), [(HARD, False), (SOFT, True), (WEIGHTED, False), (WEIGHTED, True)])
def test_together_they_are_what_they_are_alone_value_and_gradient(losses: list[Loss], soft: bool) -> None:
    logits, label, valid = batch(soft)
    together = named(losses)(lambda output: logits, label, valid)
    for number, loss in enumerate(losses):
        alone = loss(logits, label, valid)
        torch.testing.assert_close(together[f"{number}"], alone, rtol=1e-12, atol=1e-12)
        gradients = [torch.autograd.grad(value, logits, retain_graph=True)[0] for value in (together[f"{number}"], alone)]
        torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


def readings(losses: list[Loss], soft: bool, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often the terms' sums are taken together."""
    taken, original = [], weighted_terms.sums_of
    monkeypatch.setattr(
        weighted_terms, "sums_of", lambda *arguments, **options: taken.append(1) or original(*arguments, **options)
    )
    logits, label, valid = batch(soft)
    named(losses)(lambda output: logits, label, valid)
    return len(taken)


@pytest.mark.parametrize(
    ("losses", "soft", "times"),
    [
        ([CrossEntropyLoss(), JDTLoss(ignore_index=255)], False, 1),
        ([KLLoss(), JDTLoss(ignore_index=255)], True, 1),
        ([JDTLoss(ignore_index=255), JDTLoss(alpha=0.5, beta=0.5, ignore_index=255)], False, 1),
        ([CrossEntropyLoss()], False, 0),
        ([CrossEntropyLoss(), CrossEntropyLoss()], False, 0),
        ([CrossEntropyLoss(), JDTLoss(norm=2, ignore_index=255)], False, 0),
        ([CrossEntropyLoss(), JDTLoss(ignore_index=7)], False, 0),
        ([CrossEntropyLoss(ignore_index=7), JDTLoss(ignore_index=255)], False, 0),
        ([KLLoss(2.0), JDTLoss(ignore_index=255)], True, 0),
    ],
)
def test_a_pixel_mean_and_a_metric_loss_share_one_reading(
    losses: list[Loss], soft: bool, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert readings(losses, soft, monkeypatch) == times


def test_each_output_is_asked_for_once_and_the_order_is_that_of_the_terms() -> None:
    main, label, valid = batch(soft=False)
    aux, asked = main.detach().flip(1), []

    def logits_of(output: Output) -> Tensor:
        asked.append(output)
        return main if output == "main" else aux

    order: list[tuple[str, Output]] = [("a", "main"), ("b", "aux"), ("c", "main")]
    together = LossTerms([NamedLoss(name, output, 1.0, CrossEntropyLoss()) for name, output in order])
    found = together(logits_of, label, valid)
    assert list(found) == ["a", "b", "c"]
    assert asked == ["main", "aux"]
    torch.testing.assert_close(found["b"], CrossEntropyLoss()(aux, label, valid))


@pytest.mark.parametrize("fill", [0.0, 1e4])
def test_sharing_is_exact_for_logits_far_apart(fill: float) -> None:
    """log p of a softmax that underflows would be minus infinity."""
    logits = torch.tensor([[[fill, 0.0], [-fill, 500.0]]], requires_grad=True)
    label = torch.tensor([[1, 0]])
    together = named([CrossEntropyLoss(), JDTLoss(ignore_index=255)])(lambda output: logits, label)
    assert together["0"].item() == pytest.approx(CrossEntropyLoss()(logits, label).item(), rel=1e-6)
    assert torch.autograd.grad(together["0"], logits)[0].isfinite().all()


def test_an_all_ignored_batch_gives_zeros() -> None:
    logits, label, valid = batch(soft=False)
    values = named(WEIGHTED)(lambda output: logits, torch.full_like(label, 255), torch.zeros_like(valid))
    assert [value.item() for value in values.values()] == [0.0] * 3


def test_class_weights_move_with_the_terms() -> None:
    terms = named(deepcopy(WEIGHTED))
    assert {buffer.device.type for buffer in terms.to("meta").buffers()} == {"meta"}


def test_an_impossible_class_at_an_ignored_pixel_spoils_nothing() -> None:
    """Class 0 has probability 0 there, so its log p is minus infinity."""
    logits = torch.tensor([[[float("-inf"), 0.0], [0.0, 1.0]]])
    label = torch.tensor([[255, 1]])
    values = named([CrossEntropyLoss(), JDTLoss(ignore_index=255)])(lambda output: logits, label)
    assert values["0"].item() == pytest.approx(CrossEntropyLoss()(logits, label).item())
    assert values["1"].isfinite()


def small_and_large(soft: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits at head stride and upsampled, label and mask, with a tenth of the pixels ignored."""
    torch.manual_seed(0)
    small, valid = torch.randn(2, 4, 3, 5, dtype=torch.float64, requires_grad=True), torch.rand(2, 12, 20) < 0.9
    large = F.interpolate(small, (12, 20), mode="bilinear")
    if soft:
        label = torch.randn(2, 4, 12, 20).double().softmax(1).masked_fill(~valid.unsqueeze(1), 0.0)
        return small, large, label, valid
    return small, large, torch.randint(0, 4, (2, 12, 20)).masked_fill(~valid, 255), valid


def not_to_be_called(output: Output) -> Tensor:
    raise AssertionError(f"the {output} logits were upsampled")


@pytest.mark.parametrize(
    ("losses", "soft"), [(WEIGHTED, False), (WEIGHTED, True), ([CrossEntropyLoss()], False), ([KLLoss(), WEIGHTED[1]], True)]
)
def test_terms_that_share_sums_read_head_stride_and_give_the_same(losses: list[Loss], soft: bool) -> None:
    small, large, label, valid = small_and_large(soft)
    found = named(losses)(not_to_be_called, label, valid, lambda output: small)
    wanted = named(losses)(lambda output: large, label, valid)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-11, atol=1e-12)
        gradients = [torch.autograd.grad(x, small, retain_graph=True)[0] for x in (found[name], value)]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)


def test_one_term_that_needs_label_size_takes_its_output_there_and_no_other() -> None:
    small, large, label, valid = small_and_large(soft=False)
    losses: list[tuple[Output, Loss]] = [("main", CrossEntropyLoss()), ("main", FocalLoss()), ("aux", CrossEntropyLoss())]
    terms = LossTerms([NamedLoss(f"{number}", output, 1.0, loss) for number, (output, loss) in enumerate(losses)])
    asked: list[Output] = []
    values = terms(lambda output: asked.append(output) or large, label, valid, lambda output: small)
    assert asked == ["main"]
    torch.testing.assert_close(values["2"], values["0"])


def test_labels_that_do_not_fit_are_refused_at_head_stride_too() -> None:
    small, _, label, valid = small_and_large(soft=False)
    with pytest.raises(ArgumentError, match="class id 4"):
        named([CrossEntropyLoss()])(not_to_be_called, torch.full_like(label, 4), valid, lambda output: small)
