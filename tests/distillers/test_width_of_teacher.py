"""A weight that was tuned beside a teacher of 256 channels means the same beside a wider one."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from segctl.distillers.at import attention_distance
from segctl.distillers.cirkd import cross_image_similarity
from segctl.distillers.cwd import ChannelFeatures, channel_divergence
from segctl.distillers.ifvd import intra_class_variation
from segctl.distillers.rows.divergence import row_divergence
from segctl.distillers.skd import pairwise_similarity

Formula = Callable[[Tensor, Tensor], Tensor]

TERMS: dict[str, Formula] = {
    "cwd": lambda student, teacher: _adapted(student, teacher, "published"),
    "at": lambda student, teacher: attention_distance(student, teacher),
    "skd": lambda student, teacher: pairwise_similarity(student, teacher, 2),
    "ifvd": lambda student, teacher: intra_class_variation(student, teacher, _label(student), 3),
    "cirkd": lambda student, teacher: cross_image_similarity(student, teacher, 0.1),
    "cirkd_memory": lambda student, teacher: _memory(student, teacher),
}


def _label(maps: Tensor) -> Tensor:
    return (torch.arange(maps[:, 0].numel()) % 3).view(maps[:, 0].shape)


def _adapted(student: Tensor, teacher: Tensor, divide_by: str) -> Tensor:
    """CWD with an adapter that copies the student's channels, so that a wider teacher compares the same maps more often."""
    term = ChannelFeatures(student.shape[1], teacher.shape[1], divide_by=divide_by)  # type: ignore[arg-type]
    return term.factor * channel_divergence(student.repeat(1, teacher.shape[1] // student.shape[1], 1, 1), teacher, 4.0)


def _memory(student: Tensor, teacher: Tensor) -> Tensor:
    """Rows of pixels against a bank of the teacher's own, both as unit vectors; the projector copies the student's channels."""
    wide = student.repeat(1, teacher.shape[1] // student.shape[1], 1, 1)
    rows, theirs = (torch.nn.functional.normalize(maps.permute(0, 2, 3, 1).flatten(0, 2), dim=1) for maps in (wide, teacher))
    bank = theirs[::3].unsqueeze(0)
    return row_divergence(rows, bank, theirs, bank, 0.1)


@pytest.mark.parametrize("name", TERMS)
@pytest.mark.parametrize("times", [2, 3])
def test_a_teacher_that_repeats_its_channels_changes_no_value(name: str, times: int) -> None:
    torch.manual_seed(0)
    student, teacher = torch.rand(2, 4, 6, 6, dtype=torch.float64), torch.rand(2, 8, 6, 6, dtype=torch.float64)
    once = TERMS[name](student, teacher)
    assert once > 1e-4
    torch.testing.assert_close(TERMS[name](student, teacher.repeat(1, times, 1, 1)), once, rtol=1e-5, atol=0)


def test_dividing_by_the_students_channels_grows_with_the_teacher() -> None:
    """What the published code would do beside a wider teacher: the test above would find it."""
    torch.manual_seed(0)
    student, teacher = torch.rand(2, 4, 6, 6), torch.rand(2, 8, 6, 6)
    once, wide = (_adapted(student, maps, "student") for maps in (teacher, teacher.repeat(1, 2, 1, 1)))
    torch.testing.assert_close(wide, 2 * once)
    torch.testing.assert_close(once, _adapted(student, teacher, "published"))  # 4 and 8 are in the reference's proportion
