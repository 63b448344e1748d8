"""SKD: places of an image that look alike to the teacher should look alike to the student.

The method is this term beside KD and the discriminator of `discriminator.py`. Defaults are those of CIRKD's port, which the
published column comes from: a 2×2 max-pool (the paper averages) and gradients through the norms. SKD's own code pools to 2×2
or 3×3 nodes (`pool` 0.5) and takes the norms as constants (`norm_gradient` false).

The reference's features have 256 (teacher) and 128 (student) channels. The weight holds for any others, because a cosine does not
grow with the number of channels.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.distillers.align import Pair, check_maps, paired_features
from segctl.distillers.base import Term
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import PairwiseSpec

_EPSILON = 1e-12


def pairwise_similarity(student: Tensor, teacher: Tensor, pool: int | float, norm_gradient: bool = True) -> Tensor:
    """Mean squared difference of the cosine similarities of all pairs of pooled positions inside each image.

    student (B, D, h, w), teacher (B, D', h, w); D and D' may differ, because only similarities are compared.
    pool: window and stride of the max-pool, in pixels a side, or as a share of h and w. Returns a scalar.
    Raises ArgumentError for other shapes. Source: arXiv:1903.04197, equation 4.
    """
    check_maps(student, teacher, same_channels=False)
    difference = _similarities(student, pool, norm_gradient) - _similarities(teacher.detach(), pool, norm_gradient)
    return difference.square().mean()


def _similarities(features: Tensor, pool: int | float, norm_gradient: bool) -> Tensor:
    """(B, D, h, w) -> (B, M, M), M pooled positions."""
    window = [pool if isinstance(pool, int) else max(1, int(pool * side)) for side in features.shape[-2:]]
    nodes = F.max_pool2d(features, window, window, ceil_mode=True).flatten(2)
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
        """Features (B, D, h, w) and (B, D', h, w); the label is not read. Returns a scalar from 0 to 4."""
        return pairwise_similarity(*paired_features(student, teacher), self.pool, self.norm_gradient)
