"""Where channels are high: by hand, peaked maps, and the adapter between unlike networks."""

import math

import pytest
import torch
from distillers_golden import golden_features, golden_inputs, outputs

from segctl.distillers.cwd import ChannelFeatures, channel_divergence


def test_two_pixels_by_hand() -> None:
    student, teacher = torch.zeros(1, 1, 1, 2), torch.tensor([[[[math.log(3.0), 0.0]]]])
    # teacher 3/4 and 1/4, student 1/2 each
    wanted = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert channel_divergence(student, teacher, 1.0).item() == pytest.approx(wanted)


def test_a_peaked_map_has_a_finite_value_and_gradient() -> None:
    student = torch.zeros(1, 1, 2, 2, requires_grad=True)
    teacher = torch.tensor([[[[1e4, 0.0], [0.0, -1e4]]]])
    channel_divergence(1e4 * student + teacher.flip(3), teacher, 1.0).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_a_constant_on_a_channel_changes_nothing() -> None:
    student, teacher, _ = golden_inputs()
    offset = torch.arange(5.0).view(1, 5, 1, 1)
    torch.testing.assert_close(channel_divergence(student + offset, teacher, 4.0), channel_divergence(student, teacher, 4.0))


def test_features_of_other_channels_go_through_a_declared_adapter() -> None:
    student, teacher = golden_features()
    _, _, label = golden_inputs()
    torch.manual_seed(0)
    term = ChannelFeatures(4, 6).double()
    assert [tuple(weight.shape) for weight in term.parameters()] == [(6, 4, 1, 1)]
    assert term.adapter.announcement == "cwd_features: a 1×1 convolution takes the student's 4 channels to the teacher's 6"
    logits = golden_inputs()[0]
    found = term(outputs(logits, features=student), outputs(logits, features=teacher), label)
    adapted = torch.einsum("oi,bihw->bohw", next(term.parameters())[:, :, 0, 0], student)
    torch.testing.assert_close(found, 2 * channel_divergence(adapted, teacher, 4.0))


def test_dividing_by_the_compared_channels_is_the_mean() -> None:
    student, teacher = golden_features()
    logits, _, label = golden_inputs()
    torch.manual_seed(0)
    published = ChannelFeatures(4, 6, divide_by="student").double()
    proper = ChannelFeatures(4, 6, divide_by="compared").double()
    proper.load_state_dict(published.state_dict())
    maps = outputs(logits, features=student), outputs(logits, features=teacher), label
    torch.testing.assert_close(published(*maps), 1.5 * proper(*maps))


@pytest.mark.parametrize("teacher_channels", [256, 512, 768])
def test_the_published_strength_does_not_grow_with_the_teacher(teacher_channels: int) -> None:
    """At the reference's own widths, 128 and 256, it is what the published code computes."""
    assert ChannelFeatures(128, teacher_channels).factor == 2
    assert ChannelFeatures(128, teacher_channels, divide_by="student").factor == teacher_channels / 128
    assert ChannelFeatures(128, 256).factor == ChannelFeatures(128, 256, divide_by="student").factor


def test_equal_channels_need_no_adapter() -> None:
    assert list(ChannelFeatures(6, 6).parameters()) == []
