"""DSD: the change of attention from layer to layer and the similarity of the classes' maps should follow the teacher's.

The method has both terms alone beside the task loss, with weights 1,000 and 10 (winycg/CIRKD, losses/dsd.py, train_kd.py and
train_scripts/train_kd/train_dsd.sh at 2d8ad0f). Its maps are the auxiliary logits, the features and the main logits; its
MobileNetV2 has no auxiliary logits, and there the main logits stand at both ends.

Pixels: in a labelled picture all, including ignored and padded ones, as in CIRKD's code; in a picture without label the real
ones.
"""

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.distillers.align import Pair, check_maps, grid_of, paired_features, paired_logits
from segctl.distillers.at import attention_map
from segctl.distillers.base import Term
from segctl.distillers.seen import NOWHERE, mean_over_seen, nothing_unseen, seen_pixels
from segctl.models.outputs import Outputs, upsample
from segctl.schema.terms.distill_terms import DoubleSimilaritySpec
from segctl.schema.terms.loss_terms import Output


def pixel_similarity(student: Sequence[Tensor], teacher: Sequence[Tensor], seen: Tensor | None = None) -> Tensor:
    """Mean squared difference of the residual attention maps of all pairs of layers, averaged over the pairs.

    student, teacher: as many maps each, (B, D, h, w) on one grid, from the earlier layer to the later. A residual is the later
    attention map minus the earlier, scaled to length 1 in each image. seen: bool (B, h, w), None for all. Returns a scalar.
    Raises ArgumentError for other shapes.
    Source: Feng et al., Double Similarity Distillation for Semantic Image Segmentation, IEEE TIP 2021.
    """
    for ours, theirs in zip(student, teacher, strict=True):
        check_maps(ours, theirs, same_channels=False)
    pairs = zip(_residuals(student, seen), _residuals([maps.detach() for maps in teacher], seen), strict=True)
    counted = None if seen is None else seen.flatten(1)
    return torch.stack([mean_over_seen((ours - theirs).square(), counted) for ours, theirs in pairs]).mean()


def _residuals(layers: Sequence[Tensor], seen: Tensor | None) -> list[Tensor]:
    attention = [attention_map(maps, seen) for maps in layers]
    return [F.normalize(later - earlier) for earlier, later in combinations(attention, 2)]


def category_similarity(student: Tensor, teacher: Tensor, temperature: float = 4.0, seen: Tensor | None = None) -> Tensor:
    """Mean squared difference of the inner products of all pairs of classes' maps.

    student, teacher: logits (B, C, h, w). They are averaged over 2×2 pixels, and each class's map becomes a distribution over the
    pixels by a softmax of logits / temperature. seen: bool (B, h, w), None for all. Returns a scalar.
    Raises ArgumentError for other shapes.
    Source: as `pixel_similarity`.
    """
    check_maps(student, teacher, temperature)
    ours, theirs = _class_products(student, temperature, seen), _class_products(teacher.detach(), temperature, seen)
    return (ours - theirs).square().mean()


def _class_products(logits: Tensor, temperature: float, seen: Tensor | None) -> Tensor:
    """(B, C, h, w) -> (B, C, C)."""
    pooled = F.avg_pool2d(nothing_unseen(logits, seen), 2, 2, ceil_mode=True)
    if seen is not None:
        share = F.avg_pool2d(seen.unsqueeze(1).to(logits.dtype), 2, 2, ceil_mode=True)
        pooled = torch.where(share > 0, pooled / share.clamp(min=1 / 4), NOWHERE)
    shares = (pooled.flatten(2) / temperature).softmax(2)
    return torch.bmm(shares, shares.transpose(1, 2))


class DoubleSimilarity(Term[DoubleSimilaritySpec]):
    """`pixel_similarity` and `category_similarity`; maps of another grid than the student's features are resized to it."""

    mean_over_pixels = False

    def __init__(self, logits: Output = "main", temperature: float = 4.0) -> None:
        super().__init__()
        self.logits: Output = logits
        self.temperature = temperature

    @staticmethod
    def of(spec: DoubleSimilaritySpec, pair: Pair) -> "DoubleSimilarity":
        return DoubleSimilarity(spec.logits, spec.temperature)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> dict[str, Tensor]:
        """Features (B, D, h, w) and (B, D', h, w), logits (B, C, h, w); the label's classes are not read. Returns two scalars."""
        main = paired_logits(student, teacher, "main", "dsd")
        pairs = [paired_logits(student, teacher, self.logits, "dsd"), paired_features(student, teacher), main]
        grid = grid_of(student.features)
        ours, theirs = ([upsample(pair[side], grid) for pair in pairs] for side in (0, 1))
        of_logits = seen_pixels(student, label, grid_of(main[0]))
        return {
            "pixel": pixel_similarity(ours, theirs, seen_pixels(student, label, grid)),
            "category": category_similarity(*main, self.temperature, of_logits),
        }
