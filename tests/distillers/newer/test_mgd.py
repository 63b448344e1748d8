"""MGD."""

import pytest
import torch
from distillers_golden import golden_features, outputs, pair_of
from torch import nn

from segctl.distillers.newer.mgd import Generated, MaskedGeneration, kept_positions, reconstruction_distance
from segctl.schema.terms.distill_terms import MaskedGenerationSpec

LABEL = torch.zeros(2, 6, 8, dtype=torch.int64)


def filled(module: nn.Module) -> nn.Module:
    """Every parameter from a sine of its flat index, each with another phase."""
    module.double()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            index = torch.arange(parameter.numel(), dtype=torch.float64)
            parameter.copy_((0.3 * torch.sin(0.7 * index + 0.1 + number)).view_as(parameter))
    return module


def test_the_authors_code_gives_the_same_number() -> None:
    """yzd-v/MGD, seg/mmseg/distillation/losses/mgd.py at 2c9da0b: its sum over one image's 6·6·8 numbers is 175.77070563."""
    student, teacher = (outputs(maps) for maps in golden_features())
    term = filled(MaskedGeneration.of(MaskedGenerationSpec(), pair_of(student, teacher)))
    torch.manual_seed(0)
    assert term(student, teacher, LABEL).item() == pytest.approx(175.77070563 / 288, abs=1e-8)


def test_two_elements_come_out_as_by_hand() -> None:
    """(3² + 1²) / 2."""
    generated, teacher = torch.tensor([[[[3.0, 1.0]]]]), torch.tensor([[[[0.0, 2.0]]]])
    assert reconstruction_distance(generated, teacher).item() == pytest.approx(5.0)


def test_the_published_weight_is_that_of_a_sum_over_the_published_maps() -> None:
    assert MaskedGenerationSpec().weight == pytest.approx(2e-5 * 2048 * 64 * 64, rel=2e-3)


def test_as_many_positions_are_hidden_as_asked_and_another_step_hides_others() -> None:
    torch.manual_seed(0)
    first, second = (kept_positions(torch.zeros(4, 3, 50, 50), 0.75) for _ in range(2))
    assert first.shape == (4, 1, 50, 50)
    assert first.mean().item() == pytest.approx(0.25, abs=0.02)
    assert not torch.equal(first, second)
    assert torch.equal(kept_positions(torch.zeros(1, 2, 3, 3), 0.0), torch.ones(1, 1, 3, 3))


def test_a_hidden_position_has_no_gradient_through_its_own_features() -> None:
    generated = Generated((2, 2), 0.999, "mgd")
    features = torch.ones(1, 2, 4, 4, requires_grad=True)
    torch.manual_seed(0)
    generated(features).sum().backward()
    torch.manual_seed(0)
    hidden = kept_positions(features, 0.999) == 0
    assert features.grad is not None
    assert not features.grad[hidden.expand_as(features)].any()


def test_equal_widths_need_no_convolution_before_the_generator_and_the_announcement_names_both() -> None:
    assert isinstance(Generated((6, 6), 0.75, "mgd").align, nn.Identity)
    text = Generated((4, 6), 0.75, "mgd").announcement
    assert text == (
        "mgd: a generator of 690 parameters, which the student is trained with and shipped without, makes the teacher's 6 "
        "channels from 25% of the positions of the student's 4"
    )
