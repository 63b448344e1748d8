"""DSD: residual attention maps and the classes' inner products."""

import pytest
import torch
from distillers_golden import golden_features, golden_inputs, outputs
from torch import Tensor

from segctl.distillers.dsd import DoubleSimilarity, category_similarity, pixel_similarity
from segctl.errors import InputError


def golden_layers() -> tuple[list[Tensor], list[Tensor]]:
    """Auxiliary logits, features and main logits of a student and of a teacher."""
    (student, teacher), (mine, theirs, _) = golden_features(), golden_inputs()
    return [0.7 * mine.roll(3, -1) + 0.2, student, mine], [0.9 * theirs.roll(2, -2), teacher, theirs]


def test_the_published_code_gives_the_same_numbers() -> None:
    """winycg/CIRKD, losses/dsd.py at 2d8ad0f, on the same maps; the second as it runs for MobileNetV2."""
    student, teacher = golden_layers()
    assert pixel_similarity(student, teacher).item() == pytest.approx(0.04119731, abs=1e-8)
    assert pixel_similarity([student[2], *student[1:]], [teacher[2], *teacher[1:]]).item() == pytest.approx(0.02767134, abs=1e-8)
    assert category_similarity(student[2], teacher[2]).item() == pytest.approx(0.00003284, abs=1e-8)


def test_one_change_of_attention_comes_out_as_by_hand() -> None:
    """The student's attention moves from the first pixel to the second: (-1, 1)/√2; the teacher's stays: (0, 0).

    The mean of the two squares is (1/2 + 1/2) / 2.
    """
    first, second = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    assert pixel_similarity([first, second], [first, first]).item() == pytest.approx(0.5)


def test_two_classes_come_out_as_by_hand() -> None:
    """Two cells of 2×2 pixels. The student's classes lie evenly, all products are 1/2; the teacher's lie apart, 1 and 0."""
    student = torch.zeros(1, 2, 2, 4)
    teacher = torch.zeros(1, 2, 2, 4)
    teacher[0, 0, :, :2], teacher[0, 1, :, 2:] = 100.0, 100.0
    assert category_similarity(student, teacher, 1.0).item() == pytest.approx(0.25)


def test_the_term_reads_the_three_maps_on_the_grid_of_the_features() -> None:
    student, teacher = golden_layers()
    term, label = DoubleSimilarity("aux"), torch.zeros(2, 6, 8, dtype=torch.int64)
    found = term(
        outputs(student[2], student[0], features=student[1]), outputs(teacher[2], teacher[0], features=teacher[1]), label
    )
    assert found["pixel"].item() == pytest.approx(pixel_similarity(student, teacher).item(), rel=1e-12)
    assert found["category"].item() == pytest.approx(category_similarity(student[2], teacher[2]).item(), rel=1e-12)
    coarse = outputs(student[2], student[0][..., ::2, ::2], features=student[1])
    assert term(coarse, outputs(teacher[2], teacher[0], features=teacher[1]), label)["pixel"].isfinite()


def test_auxiliary_logits_that_the_teacher_lacks_are_refused() -> None:
    student, teacher = golden_layers()
    with pytest.raises(InputError, match="the distillation term 'dsd' compares auxiliary logits, and this teacher has none"):
        DoubleSimilarity("aux")(outputs(student[2], student[0]), outputs(teacher[2]), torch.zeros(2, 6, 8, dtype=torch.int64))
