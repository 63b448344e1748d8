"""CIRKD: each pixel should relate to all pixels of another image as the teacher's pixel does.

The method is this term and those of `memory.py`, beside KD. Both compare rows of similarities by `row_divergence`.

The reference's features have 256 (teacher) and 128 (student) channels. Weights and temperature hold for any others, because a
similarity is a cosine and does not grow with the number of channels.

Pixels: in a labelled picture all, including ignored and padded ones, as in the authors' code; in a picture without label the real
ones. The memory terms need labels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.distillers.align import Pair, check_maps, grid_of, groups_of, paired_features
from segctl.distillers.base import Term
from segctl.distillers.rows.divergence import row_divergence
from segctl.distillers.seen import seen_pixels
from segctl.losses.pixels import sum_dtype
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import CrossImageSpec


def cross_image_similarity(student: Tensor, teacher: Tensor, temperature: float, seen: Tensor | None = None) -> Tensor:
    """Mean over all ordered pairs of images, each with itself included, and over rows of KL(teacher's row || student's).

    A row is the softmax of one pixel's cosine similarities, over the temperature, to all pixels of the other image.
    student (B, D, h, w), teacher (B, D', h, w); seen: bool (B, h, w), None for all. Returns a scalar. No factor temperature², as
    in the authors' code.
    Raises ArgumentError for other shapes. Source: arXiv:2204.06986, equation 6.
    """
    check_maps(student, teacher, temperature, same_channels=False)
    dtype = sum_dtype(student)
    ours = F.normalize(student.to(dtype).flatten(2), dim=1).transpose(1, 2)
    theirs = F.normalize(teacher.detach().to(dtype).flatten(2), dim=1).transpose(1, 2)
    counted, keys = (None, None) if seen is None else (seen.flatten(), seen.flatten(1))
    return row_divergence(ours.flatten(0, 1), ours, theirs.flatten(0, 1), theirs, temperature, counted, keys)


class CrossImage(Term[CrossImageSpec]):
    """`cross_image_similarity` of the features in groups of images; mean over the groups, weighted by their images."""

    mean_over_pixels = False

    def __init__(self, temperature: float = 0.1, group: int = 2) -> None:
        super().__init__()
        self.temperature, self.group = temperature, group

    @staticmethod
    def of(spec: CrossImageSpec, pair: Pair) -> "CrossImage":
        return CrossImage(spec.temperature, spec.group)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Features (B, D, h, w) and (B, D', h, w); the label's classes are not read. Returns a scalar of at least 0."""
        ours, theirs = paired_features(student, teacher)
        seen = seen_pixels(student, label, grid_of(ours))
        parts = [
            len(ours[part])
            / len(ours)
            * cross_image_similarity(ours[part], theirs[part], self.temperature, None if seen is None else seen[part])
            for part in groups_of(len(ours), self.group)
        ]
        return torch.stack(parts).sum()
