"""Masks, the distance inside them, and the stage that learns them."""

import pytest
import torch
from distillers_golden import golden_inputs, outputs

from segctl.distillers.maskd import MaskedLogits, MaskStage, mask_overlap, masked_distance, receptive_masks
from segctl.schema.terms.distill_terms import MaskStageSpec


def test_one_mask_over_two_pixels_by_hand() -> None:
    student, teacher = torch.tensor([[[[3.0, 5.0]]]]), torch.tensor([[[[1.0, 1.0]]]])
    masks = torch.tensor([[[[1.0, 0.5]]]])
    # (1²·2² + 0.5²·4²) / 1.5 / 2
    assert masked_distance(student, teacher, masks).item() == pytest.approx(8 / 1.5 / 2, rel=1e-4)


def test_overlap_of_equal_and_of_disjoint_masks() -> None:
    equal = torch.ones(1, 2, 1, 4)
    assert mask_overlap(equal).item() == pytest.approx(1.0)
    disjoint = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]], [[0.0, 0.0, 1.0, 1.0]]]])
    assert mask_overlap(disjoint).item() == pytest.approx(0.0)
    assert mask_overlap(torch.ones(1, 1, 1, 4)).item() == 0


def stage() -> MaskStage:
    return MaskStage(3, 5, MaskStageSpec())


def test_tokens_begin_the_same_whatever_was_drawn_before() -> None:
    first = stage().tokens
    torch.rand(7)
    assert torch.equal(stage().tokens, first)
    assert first.std().item() == pytest.approx(0.01, rel=0.6)


def test_masks_only_rescale_so_the_teachers_answer_stays() -> None:
    _, teacher, _ = golden_inputs()
    masks = receptive_masks(torch.randn(3, 5, dtype=torch.float64), teacher)
    assert torch.equal((masks.sum(1, keepdim=True) * teacher).argmax(1), teacher.argmax(1))


def test_the_stage_trains_tokens_to_overlap_less_and_nothing_else() -> None:
    _, teacher, label = golden_inputs()
    teacher = teacher.float().requires_grad_()
    learner = stage()
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.stack(list(learner(outputs(teacher), label).values())).sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert teacher.grad is None


def test_a_term_keeps_the_tokens_in_its_state_and_trains_none() -> None:
    learner = stage()
    term = MaskedLogits(learner, "main")
    with torch.no_grad():
        learner.tokens.add_(1.0)
    term.receive(learner)
    assert torch.equal(term.state_dict()["tokens"], learner.tokens)
    assert list(term.parameters()) == []


def test_an_all_ignored_batch_still_teaches_the_masks_to_differ() -> None:
    _, teacher, label = golden_inputs()
    parts = stage()(outputs(teacher.float()), torch.full_like(label, 255))
    assert parts["cross_entropy"].item() == 0
    assert parts["overlap"].item() > 0
