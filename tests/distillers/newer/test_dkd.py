"""DKD on pixels."""

import math

import pytest
import torch
from distillers_golden import golden_inputs, outputs
from torch import Tensor

from segctl.distillers.newer.dkd import Decoupled, decoupled_divergence
from segctl.errors import ArgumentError


def slow(student: Tensor, teacher: Tensor, label: Tensor, alpha: float, beta: float, temperature: float) -> float:
    """Pixel by pixel and class by class, from the definition."""
    found = []
    for image, row, column in [tuple(x) for x in (label != 255).nonzero().tolist()]:
        own = int(label[image, row, column])
        pair = []
        for logits in (student, teacher):
            exponents = [math.exp(value / temperature) for value in logits[image, :, row, column].tolist()]
            others = [value for index, value in enumerate(exponents) if index != own]
            pair.append((exponents[own] / sum(exponents), [value / sum(others) for value in others]))
        (p_s, o_s), (p_t, o_t) = pair
        binary = p_t * math.log(p_t / p_s) + (1 - p_t) * math.log((1 - p_t) / (1 - p_s))
        ranking = sum(t * math.log(t / s) for t, s in zip(o_t, o_s, strict=True))
        found.append(alpha * binary + beta * ranking)
    return temperature**2 * sum(found) / len(found)


@pytest.mark.parametrize(
    ("alpha", "beta", "temperature", "wanted"),
    [(1.0, 0.5, 1.0, 1.49265405), (1.0, 8.0, 4.0, 31.54762569), (1.0, 0.0, 1.0, 0.38913405), (0.0, 1.0, 1.0, 2.20703999)],
)
def test_the_authors_code_and_slow_loops_give_the_same_number(
    alpha: float, beta: float, temperature: float, wanted: float
) -> None:
    """mdistiller/distillers/DKD.py, as sunshangquan/logit-standardization-KD has it at f6e5aa5, on the labelled pixels."""
    student, teacher, label = golden_inputs()
    found = decoupled_divergence(student, teacher, label, alpha, beta, temperature).item()
    assert found == pytest.approx(wanted, abs=1e-7)
    assert found == pytest.approx(slow(student, teacher, label, alpha, beta, temperature), rel=1e-10)


def test_one_pixel_comes_out_as_by_hand() -> None:
    """The student is undecided over three classes; the teacher gives 1/2 to the labelled one, and 3/4 of the rest to the second.

    The labelled class: ½·log(½ / ⅓) + ½·log(½ / ⅔).  The others: ¾·log(¾ / ½) + ¼·log(¼ / ½).
    """
    student = torch.zeros(1, 3, 1, 1, dtype=torch.float64)
    teacher = torch.tensor([4.0, 3.0, 1.0], dtype=torch.float64).log().view(1, 3, 1, 1)
    label = torch.zeros(1, 1, 1, dtype=torch.int64)
    binary = 0.5 * math.log(1.5) + 0.5 * math.log(0.75)
    ranking = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert decoupled_divergence(student, teacher, label, 2.0, 3.0).item() == pytest.approx(2 * binary + 3 * ranking)


def test_with_equal_factors_of_one_and_what_the_teacher_leaves_to_the_others_it_is_kd() -> None:
    """What the paper begins with: KL = the labelled class's part + (1 - p)·the others' part."""
    student, teacher, _ = (maps[:1, :, :1, :1] for maps in (*golden_inputs()[:2], golden_inputs()[0]))
    label = torch.zeros(1, 1, 1, dtype=torch.int64)
    log_s, log_t = student.log_softmax(1), teacher.log_softmax(1)
    kl = (log_t.exp() * (log_t - log_s)).sum()
    rest = 1 - log_t.exp()[0, 0, 0, 0].item()
    assert decoupled_divergence(student, teacher, label, 1.0, rest).item() == pytest.approx(kl.item(), rel=1e-10)


def test_ignored_pixels_have_no_part_in_it() -> None:
    student, teacher, label = golden_inputs()
    other = student.clone()
    other.permute(0, 2, 3, 1)[label == 255] += torch.arange(5.0).double()
    term = Decoupled()
    assert term(outputs(student), outputs(teacher), label).item() == term(outputs(other), outputs(teacher), label).item()


@pytest.mark.parametrize("sure", [50.0, 1000.0])
def test_a_teacher_or_a_student_that_is_entirely_sure_gives_finite_gradients(sure: float) -> None:
    student = torch.tensor([sure, 0.0, -sure]).view(1, 3, 1, 1).requires_grad_()
    teacher = torch.tensor([-sure, sure, 0.0]).view(1, 3, 1, 1)
    for label in (0, 1, 2):
        value = decoupled_divergence(student, teacher, torch.full((1, 1, 1), label), 1.0, 1.0)
        (slope,) = torch.autograd.grad(value, student)
        assert value.isfinite()
        assert slope.isfinite().all()


def test_two_classes_have_no_others_to_rank() -> None:
    student, teacher, label = golden_inputs()
    label = label.where(label == 255, label % 2)
    assert decoupled_divergence(student[:, :2], teacher[:, :2], label, 0.0, 1.0).item() == pytest.approx(0.0, abs=1e-12)


def test_a_label_of_another_size_is_an_error() -> None:
    student, teacher, label = golden_inputs()
    with pytest.raises(ArgumentError, match=r"label is \(2, 5, 8\), wanted \(2, 6, 8\)"):
        decoupled_divergence(student, teacher, label[:, :5], 1.0, 1.0)
