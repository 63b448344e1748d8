"""CIRKD's mini-batch term: how every pixel relates to all pixels of another image, as the teacher's pixels do.

The method is this term and those of `cirkd_memory.py` beside KD.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segctl.distillers.align import groups_of, paired_features
from segctl.distillers.row_divergence import row_divergence
from segctl.losses.pixels import sum_dtype
from segctl.models.outputs import Outputs


def cross_image_similarity(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over all ordered pairs of images, each with itself included, and over rows of KL(teacher's row || student's).

    A row is the softmax of one pixel's cosine similarities, over the temperature, to all pixels of the other image.
    student (B, D, h, w), teacher (B, D', h, w).  Returns a scalar.  No factor temperature², as in the authors' code.
    Source: arXiv:2204.06986, equation 6.
    """
    dtype = sum_dtype(student)
    ours = F.normalize(student.to(dtype).flatten(2), dim=1).transpose(1, 2)
    theirs = F.normalize(teacher.detach().to(dtype).flatten(2), dim=1).transpose(1, 2)
    return row_divergence(ours.flatten(0, 1), ours, theirs.flatten(0, 1), theirs, temperature)


class CrossImage(nn.Module):
    """`cross_image_similarity` of the features, in groups of images; the mean over the groups, each by its share of images."""

    mean_over_pixels = False

    def __init__(self, temperature: float = 0.1, group: int = 2) -> None:
        super().__init__()
        self.temperature, self.group = temperature, group

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        ours, theirs = paired_features(student, teacher)
        parts = [
            len(ours[part]) / len(ours) * cross_image_similarity(ours[part], theirs[part], self.temperature)
            for part in groups_of(len(ours), self.group)
        ]
        return torch.stack(parts).sum()
