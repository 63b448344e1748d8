"""Which pixels each term sees of a picture without label: every real one, and no padding."""

import pytest
import torch
from distillers_golden import golden_inputs, outputs
from test_every_term import TERMS, ids, term_of
from torch import Tensor, nn

from segctl.distillers.base import Term
from segctl.distillers.build import term_class
from segctl.distillers.ifvd import IntraClass
from segctl.distillers.jml import SoftKL
from segctl.distillers.kd import PixelKL, pixel_kl
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import AdversarialSpec, PairwiseSpec

REAL = 6
"""Columns of the pictures; the other two are padding."""
FROM_ANY_PICTURE = [spec for spec in TERMS if not term_class(type(spec)).needs_labels]
NEED_LABELS = {spec.kind for spec in TERMS if term_class(type(spec)).needs_labels}


def without_labels(maps: Tensor, unlabelled: Tensor) -> Outputs:
    found = outputs(maps, maps, (maps.shape[-2], maps.shape[-1]))
    found.unlabelled = unlabelled
    return found


def value(term: nn.Module, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
    found = term(student, teacher, label)
    if isinstance(found, Tensor):
        return found
    return torch.stack([value for name, value in found.items() if name != "discriminator"]).sum()


def padded() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Student and teacher (2, 5, 6, 8), the label of a batch without labels, and its real pixels."""
    student, teacher, label = golden_inputs()
    real = torch.zeros(2, 6, 8, dtype=torch.bool)
    real[:, :, :REAL] = True
    return student, teacher, torch.full_like(label, 255), real


def test_only_terms_that_compare_by_class_need_labels() -> None:
    assert {"ifvd", "cirkd_memory"} == NEED_LABELS


@pytest.mark.parametrize("spec", FROM_ANY_PICTURE, ids=ids(FROM_ANY_PICTURE))
def test_pictures_without_labels_alone_teach_the_student_and_padding_does_not(spec) -> None:
    student, teacher, label, real = padded()
    student.requires_grad_()
    found = value(term_of(spec), without_labels(student, real), without_labels(teacher, real), label)
    found.backward()
    assert found.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad[..., :REAL].abs().sum() > 0
    assert (student.grad[..., REAL:] == 0).all()


@pytest.mark.parametrize("spec", FROM_ANY_PICTURE, ids=ids(FROM_ANY_PICTURE))
def test_what_stands_in_the_padding_changes_nothing(spec) -> None:
    student, teacher, label, real = padded()
    before = value(term_of(spec), without_labels(student, real), without_labels(teacher, real), label)
    student[..., REAL:], teacher[..., REAL:] = 7.0, -5.0
    torch.testing.assert_close(value(term_of(spec), without_labels(student, real), without_labels(teacher, real), label), before)


CROPPED = [spec for spec in FROM_ANY_PICTURE if not isinstance(spec, AdversarialSpec)]
CROPPED = [spec for spec in CROPPED if not (isinstance(spec, PairwiseSpec) and isinstance(spec.pool, float))]


@pytest.mark.parametrize("spec", CROPPED, ids=ids(CROPPED))
def test_a_padded_picture_teaches_what_its_real_part_alone_would(spec) -> None:
    """The reference is slow and plain: cut the padding off, and give every pixel a label."""
    student, teacher, label, real = padded()
    alone = [maps[..., :REAL].contiguous() for maps in (student, teacher)]
    size = (6, REAL)
    wanted = value(term_of(spec), *(outputs(maps, maps, size) for maps in alone), torch.zeros_like(label[..., :REAL]))
    found = value(term_of(spec), without_labels(student, real), without_labels(teacher, real), label)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("spec", CROPPED, ids=ids(CROPPED))
def test_a_labelled_picture_is_seen_as_ever_beside_one_without_label(spec) -> None:
    """Nothing is padded, and no pixel ignored: then it makes no difference which pictures have labels."""
    student, teacher, label = golden_inputs()
    label = label.masked_fill(label == 255, 0)
    wanted = value(term_of(spec), outputs(student, student), outputs(teacher, teacher), label)
    real = torch.zeros(2, 6, 8, dtype=torch.bool)
    real[1] = True
    mixed = label.clone()
    mixed[1] = 255
    found = value(term_of(spec), without_labels(student, real), without_labels(teacher, real), mixed)
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


def test_two_pixels_by_hand() -> None:
    """One picture of a real pixel and a padded one: the mean is over the real pixel alone."""
    student, teacher = torch.zeros(1, 2, 1, 2), torch.tensor([[[[2.0, 9.0]], [[0.0, 0.0]]]])
    q = torch.tensor([2.0, 0.0]).softmax(0)
    by_hand = float((q * (q / 0.5).log()).sum())
    assert pixel_kl(student, teacher, 1.0, torch.tensor([[[True, False]]])).item() == pytest.approx(by_hand, abs=1e-6)
    real = torch.tensor([[[True, False]]])
    ours, theirs, label = without_labels(student, real), without_labels(teacher, real), torch.full((1, 1, 2), 255)
    assert PixelKL()(ours, theirs, label).item() == pytest.approx(by_hand, abs=1e-6)
    assert SoftKL()(ours, theirs, label).item() == pytest.approx(by_hand, abs=1e-6)


def test_means_add_up_by_images_although_their_padding_differs() -> None:
    student, teacher, label, real = padded()
    real[0, :, 2:] = False
    for term in (PixelKL(), SoftKL(pixels="all")):
        assert not term.mean_over_pixels
        whole = term(without_labels(student, real), without_labels(teacher, real), label)
        parts = [
            term(
                without_labels(student[i : i + 1], real[i : i + 1]),
                without_labels(teacher[i : i + 1], real[i : i + 1]),
                label[:1],
            )
            for i in range(2)
        ]
        torch.testing.assert_close(whole, torch.stack(parts).mean())


def test_terms_by_class_see_labelled_pictures_alone() -> None:
    student, teacher, label = golden_inputs()
    real = torch.zeros(2, 6, 8, dtype=torch.bool)
    real[1] = True
    mixed = label.clone()
    mixed[1] = 255
    term: Term[object] = IntraClass(5)  # type: ignore[assignment]
    found = term(without_labels(student, real), without_labels(teacher, real), mixed)
    alone = term(outputs(student[:1]), outputs(teacher[:1]), label[:1])
    torch.testing.assert_close(found, alone)
    none = term(without_labels(student, real | True), without_labels(teacher, real | True), torch.full_like(label, 255))
    assert none.item() == 0


def test_a_pasted_pixel_with_a_label_is_seen() -> None:
    student, teacher, label, real = padded()
    label[0, 0, 7] = 3  # copy_paste has put it onto the padding
    before = PixelKL()(without_labels(student, real), without_labels(teacher, real), label)
    student[0, :, 0, 7] += torch.arange(5)
    assert PixelKL()(without_labels(student, real), without_labels(teacher, real), label).item() != before.item()
