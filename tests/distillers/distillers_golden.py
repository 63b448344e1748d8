"""Inputs whose distances are known to eight digits, and networks' answers made from plain logits."""

import torch
from torch import Tensor

from segctl.models.outputs import Outputs, Prediction


def golden_inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Student logits and teacher logits (2, 5, 6, 8) in float64, and a label (2, 6, 8) with 255 ignored."""
    k = torch.arange(2 * 5 * 6 * 8, dtype=torch.float64)
    student, teacher = 3 * torch.sin(0.37 * k), 3 * torch.cos(0.23 * k)
    label = ((7 * (torch.arange(2 * 6 * 8) // 3)) % 6).view(2, 6, 8)
    return student.view(2, 5, 6, 8), teacher.view(2, 5, 6, 8), label.masked_fill(label == 5, 255)


def outputs(logits: Tensor, aux_logits: Tensor | None = None, size: tuple[int, int] = (6, 8)) -> Outputs:
    return Outputs(Prediction(logits, aux_logits, features=logits), size)
