"""What two networks measure, groups of images, and labels on a coarser grid."""

import pytest
import torch
from distillers_golden import golden_inputs, outputs, pair_of

from segctl.distillers import build_distiller
from segctl.distillers.align import groups_of, label_on_grid, paired_features
from segctl.schema.distill_terms import IntraClassSpec, PixelKLSpec, RelationSpec, SoftKLSpec
from segctl.schema.methods import DistillerSpec


@pytest.mark.parametrize(
    ("images", "size", "groups"),
    [(16, 2, [2] * 8), (5, 2, [2, 3]), (3, 2, [3]), (1, 2, [1]), (7, 3, [3, 4]), (2, 4, [2])],
)  # fmt: skip
def test_no_image_of_several_stands_alone(images: int, size: int, groups: list[int]) -> None:
    found = [range(images)[part] for part in groups_of(images, size)]
    assert [len(part) for part in found] == groups
    assert [image for part in found for image in part] == list(range(images))


def test_a_label_on_a_coarser_grid_keeps_its_ids() -> None:
    label = torch.tensor([[[0, 1, 2, 255], [3, 4, 5, 6]]], dtype=torch.uint8)
    assert label_on_grid(label, (1, 2)).tolist() == [[[0, 2]]]
    assert label_on_grid(label, (2, 4)).dtype == torch.int64


def test_the_teachers_features_come_to_the_students_grid_without_gradient() -> None:
    student, teacher, _ = golden_inputs()
    ours, theirs = paired_features(outputs(student), outputs(teacher[:, :, ::2, ::2].requires_grad_()))
    assert ours.shape == theirs.shape
    assert not theirs.requires_grad


def test_what_is_resized_is_announced_and_nothing_else() -> None:
    student, teacher, _ = golden_inputs()
    coarse = teacher[:, :, ::2, ::2]
    pair = pair_of(outputs(student, student), outputs(coarse, teacher))
    terms = (PixelKLSpec(), SoftKLSpec(logits="aux"), RelationSpec(logits="aux"), IntraClassSpec())
    assert build_distiller(DistillerSpec(terms=terms), pair).announcements() == [
        "the teacher's main logits of 3×4 are resized to the student's 6×8",
        "the teacher's features of 3×4 are resized to the student's 6×8",
    ]
