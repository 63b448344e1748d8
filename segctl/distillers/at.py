"""AT: the student's features are large where the teacher's are.

The paper compares several layers and takes the norm of the difference. CIRKD's code compares the features before the classifiers
and takes the mean square over positions, with weight 10,000 beside KD (winycg/CIRKD, losses/at.py and
train_scripts/train_kd/train_at.sh at 2d8ad0f). A mean over positions shrinks as maps grow, because attention maps have length 1:
that weight was tuned on 64×128 positions, and on CamVid's 45×45 the term is four times as strong.

Pixels: in a labelled picture all, including ignored and padded ones, as in CIRKD's code; in a picture without label the real
ones.
"""

from torch import Tensor
from torch.nn import functional as F

from segctl.distillers.align import Pair, check_maps, grid_of, paired_features
from segctl.distillers.base import Term
from segctl.distillers.seen import mean_over_seen, nothing_unseen, seen_pixels
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import AttentionSpec


def attention_map(maps: Tensor, seen: Tensor | None = None) -> Tensor:
    """(B, D, h, w) -> (B, h·w): the mean square over channels, scaled to length 1 in each image (arXiv:1612.03928).

    seen: bool (B, h, w), None for all; 0 at other pixels.
    """
    return F.normalize(nothing_unseen(maps, seen).square().mean(1).flatten(1))


def attention_distance(student: Tensor, teacher: Tensor, seen: Tensor | None = None) -> Tensor:
    """Mean squared difference of the attention maps. student (B, D, h, w), teacher (B, D', h, w). Returns a scalar.

    seen: bool (B, h, w), None for all.

    Raises ArgumentError for other shapes. Source: arXiv:1612.03928, equation 2, squared and averaged as CIRKD's code does.
    """
    check_maps(student, teacher, same_channels=False)
    difference = (attention_map(student, seen) - attention_map(teacher.detach(), seen)).square()
    return mean_over_seen(difference, None if seen is None else seen.flatten(1))


class Attention(Term[AttentionSpec]):
    """`attention_distance` of the features; a teacher of another head stride is resized to the student's grid."""

    mean_over_pixels = False

    @staticmethod
    def of(spec: AttentionSpec, pair: Pair) -> "Attention":
        return Attention()

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Features (B, D, h, w) and (B, D', h, w); the label's classes are not read. Returns a scalar of at least 0."""
        ours, theirs = paired_features(student, teacher)
        return attention_distance(ours, theirs, seen_pixels(student, label, grid_of(ours)))
