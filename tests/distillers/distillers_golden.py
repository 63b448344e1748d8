"""Inputs whose distances are known to eight digits, and networks' answers made from plain tensors."""

import torch
from torch import Tensor

from segctl.distillers.align import Pair, Shape
from segctl.models.outputs import Outputs, Prediction


def golden_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Student logits and teacher logits (2, 5, 6, 8) in float64, and a label (2, 6, 8) with 255 ignored."""
    k = torch.arange(2 * 5 * 6 * 8, dtype=torch.float64)
    student, teacher = 3 * torch.sin(0.37 * k), 3 * torch.cos(0.23 * k)
    label = ((7 * (torch.arange(2 * 6 * 8) // 3)) % 6).view(2, 6, 8)
    return student.view(2, 5, 6, 8), teacher.view(2, 5, 6, 8), label.masked_fill(label == 5, 255)


def golden_features() -> tuple[Tensor, Tensor]:
    """Student features (2, 4, 6, 8) and teacher features (2, 6, 6, 8) in float64."""
    k_s, k_t = (torch.arange(2 * channels * 6 * 8, dtype=torch.float64) for channels in (4, 6))
    return (torch.sin(0.11 * k_s + 0.5) + 0.2).view(2, 4, 6, 8), (torch.cos(0.19 * k_t) + 0.1).view(2, 6, 6, 8)


def outputs(
    logits: Tensor, aux_logits: Tensor | None = None, size: tuple[int, int] = (6, 8), features: Tensor | None = None
) -> Outputs:
    return Outputs(Prediction(logits, aux_logits, features=logits if features is None else features), size)


def pair_of(student: Outputs, teacher: Outputs) -> Pair:
    return Pair(Shape.of(student.prediction), Shape.of(teacher.prediction))


def golden_pair() -> Pair:
    """Two networks whose features are their logits."""
    student, teacher, _ = golden_inputs()
    return pair_of(outputs(student, student), outputs(teacher, teacher))
