"""SKD: places of an image that look alike to the teacher should look alike to the student.

The method is this term beside KD and the discriminator of `discriminator.py`. Defaults are those of CIRKD's port, which the
published column comes from: a 2×2 max-pool (the paper averages) and gradients through the norms. SKD's own code pools to 2×2
or 3×3 nodes (`pool` 0.5) and takes the norms as constants (`norm_gradient` false).

The reference's features have 256 (teacher) and 128 (student) channels. The weight holds for any others, because a cosine does not
grow with the number of channels.

Pixels: in a labelled picture all, including ignored and padded ones, as in all code; in a picture without label the real ones: a
pooled position is the largest of its real pixels, and one without any is in no pair.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.distillers.align import Pair, check_maps, grid_of, paired_features
from segctl.distillers.base import Term
from segctl.distillers.seen import NOWHERE, mean_over_seen, nothing_unseen, seen_pixels
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import PairwiseSpec

_EPSILON = 1e-12


def pairwise_similarity(
    student: Tensor, teacher: Tensor, pool: int | float, norm_gradient: bool = True, seen: Tensor | None = None
) -> Tensor:
    """Mean squared difference of the cosine similarities of all pairs of pooled positions inside each image.

    student (B, D, h, w), teacher (B, D', h, w); D and D' may differ, because only similarities are compared.
    pool: window and stride of the max-pool, in pixels a side, or as a share of h and w. seen: bool (B, h, w), None for all.
    Returns a scalar.
    Raises ArgumentError for other shapes. Source: arXiv:1903.04197, equation 4.
    """
    check_maps(student, teacher, same_channels=False)
    window = [pool if isinstance(pool, int) else max(1, int(pool * side)) for side in student.shape[-2:]]
    ours = _similarities(student, window, norm_gradient, seen)
    difference = (ours - _similarities(teacher.detach(), window, norm_gradient, seen)).square()
    if seen is None:
        return difference.mean()
    there = _pooled(seen.unsqueeze(1).to(difference.dtype), window).squeeze(1) > 0
    return mean_over_seen(difference, there.unsqueeze(1) & there.unsqueeze(2))


def _pooled(maps: Tensor, window: list[int]) -> Tensor:
    """(B, D, h, w) -> (B, D, M), M pooled positions."""
    return F.max_pool2d(maps, window, window, ceil_mode=True).flatten(2)


def _similarities(features: Tensor, window: list[int], norm_gradient: bool, seen: Tensor | None) -> Tensor:
    """(B, D, h, w) -> (B, M, M), M pooled positions; the similarities of those without a seen pixel mean nothing."""
    nodes = _pooled(nothing_unseen(features, seen, NOWHERE), window)
    if seen is not None:
        nodes = nodes.masked_fill(nodes <= NOWHERE / 2, 0.0)
    norm = torch.linalg.vector_norm(nodes, dim=1, keepdim=True).clamp(min=_EPSILON)
    unit = nodes / (norm if norm_gradient else norm.detach())
    return torch.bmm(unit.transpose(1, 2), unit)


class Pairwise(Term[PairwiseSpec]):
    """`pairwise_similarity` of the features; a teacher of another head stride is resized to the student's grid."""

    mean_over_pixels = False

    def __init__(self, pool: int | float = 2, norm_gradient: bool = True) -> None:
        super().__init__()
        self.pool = pool
        self.norm_gradient = norm_gradient

    @staticmethod
    def of(spec: PairwiseSpec, pair: Pair) -> "Pairwise":
        return Pairwise(spec.pool, spec.norm_gradient)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Features (B, D, h, w) and (B, D', h, w); the label's classes are not read. Returns a scalar from 0 to 4."""
        ours, theirs = paired_features(student, teacher)
        return pairwise_similarity(ours, theirs, self.pool, self.norm_gradient, seen_pixels(student, label, grid_of(ours)))
