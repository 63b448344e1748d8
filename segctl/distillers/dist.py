"""DIST: the student's ranking of classes at a pixel, and of pixels for a class, correlates with the teacher's.

Pixels: in a labelled picture all, including ignored and padded ones, as in the authors' code; in a picture without label the real
ones.
"""

import torch
from torch import Tensor

from segctl.distillers.align import Pair, check_maps, grid_of, groups_of, paired_logits
from segctl.distillers.base import Term
from segctl.distillers.seen import mean_over_seen, seen_pixels
from segctl.losses.pixels import sum_dtype
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import RelationSpec
from segctl.schema.terms.loss_terms import Output

_EPSILON = 1e-8


def relation_distance(student: Tensor, teacher: Tensor, beta: float, gamma: float, seen: Tensor | None = None) -> Tensor:
    """beta (1 - mean over pixels of rho over classes) + gamma (1 - mean over classes of rho over all pixels of the batch).

    rho is Pearson's correlation of the probabilities. student, teacher: logits (B, C, h, w); seen: bool (B, h, w), None for all.
    Returns a scalar; 0 up to the correlation's epsilon where both give the same probabilities. Raises ArgumentError for other
    shapes. Source: arXiv:2205.10536, equations 9 and 10. A class that the teacher sees nowhere counts too, as in the authors'
    code.
    """
    check_maps(student, teacher)
    ours = student.softmax(1, dtype=sum_dtype(student)).movedim(1, 0).flatten(1)  # (C, B·h·w)
    theirs = teacher.detach().softmax(1, dtype=ours.dtype).movedim(1, 0).flatten(1)
    if seen is None:
        over_classes = 1 - _correlation(ours, theirs, 0).mean()
    else:
        size = (len(student), *student.shape[2:])
        over_classes = 1 - mean_over_seen(_correlation(ours, theirs, 0).view(size), seen)
    over_pixels = 1 - _correlation(ours, theirs, 1, None if seen is None else seen.flatten()).mean()
    return beta * over_classes + gamma * over_pixels


def _correlation(a: Tensor, b: Tensor, dim: int, counted: Tensor | None = None) -> Tensor:
    """Pearson's correlation of (C, N) and (C, N) along a dimension: (N,) for 0, (C,) for 1; counted: bool (N,), None for all."""
    if counted is None:
        a, b = a - a.mean(dim, keepdim=True), b - b.mean(dim, keepdim=True)
    else:
        number = counted.sum().clamp(min=1)
        a, b = (x - x.masked_fill(~counted, 0.0).sum(dim, keepdim=True) / number for x in (a, b))
        a, b = a.masked_fill(~counted, 0.0), b.masked_fill(~counted, 0.0)
    norms = torch.linalg.vector_norm(a, dim=dim) * torch.linalg.vector_norm(b, dim=dim)
    return (a * b).sum(dim).div(norms + _EPSILON)


class Relation(Term[RelationSpec]):
    """`relation_distance` at head stride in groups of images; mean over the groups, weighted by their images.

    The relation over pixels depends on how many images are correlated together: two on each of the authors' GPUs.
    """

    mean_over_pixels = False

    def __init__(self, logits: Output = "main", beta: float = 1.0, gamma: float = 1.0, group: int = 2) -> None:
        super().__init__()
        self.logits: Output = logits
        self.beta, self.gamma, self.group = beta, gamma, group

    @staticmethod
    def of(spec: RelationSpec, pair: Pair) -> "Relation":
        return Relation(spec.logits, spec.beta, spec.gamma, spec.group)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Logits (B, C, h, w) at head stride; the label's classes are not read. Returns a scalar from 0 to 2 (beta + gamma)."""
        ours, theirs = paired_logits(student, teacher, self.logits, "dist")
        seen = seen_pixels(student, label, grid_of(ours))
        parts = [
            len(ours[part])
            / len(ours)
            * relation_distance(ours[part], theirs[part], self.beta, self.gamma, None if seen is None else seen[part])
            for part in groups_of(len(ours), self.group)
        ]
        return torch.stack(parts).sum()
