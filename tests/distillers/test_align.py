"""What two networks measure, groups of images, and labels on a coarser grid."""

from collections.abc import Callable

import pytest
import torch
from distillers_golden import golden_inputs, outputs, pair_of
from torch import Tensor

from segctl.distillers import build_distiller
from segctl.distillers.align import groups_of, label_on_grid, paired_features
from segctl.distillers.cirkd import cross_image_similarity
from segctl.distillers.cwd import channel_divergence
from segctl.distillers.dist import relation_distance
from segctl.distillers.ifvd import intra_class_variation
from segctl.distillers.kd import pixel_kl
from segctl.distillers.maskd import masked_distance
from segctl.distillers.skd import pairwise_similarity
from segctl.schema.terms.distill_terms import IntraClassSpec, PixelKLSpec, RelationSpec, SoftKLSpec
from segctl.schema.terms.methods import DistillerSpec


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


X = torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: pixel_kl(X, X[:, :2], 1.0), r"student \(2, 3, 4, 5\) and teacher \(2, 2, 4, 5\), wanted two"),
        (lambda: pixel_kl(X, X, 0.0), "got temperature 0.0, wanted above 0"),
        (lambda: channel_divergence(X, X[..., :4], 1.0), "of the same shape"),
        (lambda: relation_distance(X[0], X[0], 1.0, 1.0), "of the same shape"),
        (lambda: pairwise_similarity(X, X[..., :4], 2), "that differ only in their channels"),
        (lambda: cross_image_similarity(X, X[:1], 0.1), "that differ only in their channels"),
        (lambda: intra_class_variation(X, X, torch.zeros(2, 8, 10), 3), r"label is \(2, 8, 10\), wanted \(2, 4, 5\)"),
        (lambda: masked_distance(X, X, X[..., :4]), r"got masks \(2, 3, 4, 4\), wanted \(B, K, h, w\)"),
    ],
)  # fmt: skip
def test_a_formula_refuses_wrong_arguments_by_a_value_error(wrong: Callable[[], Tensor], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_formula_takes_features_of_other_channels() -> None:
    assert pairwise_similarity(X, torch.zeros(2, 7, 4, 5), 2).isfinite()
