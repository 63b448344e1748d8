"""MGD: from a part of the student's features, a small network generates all of the teacher's.

The method is this term beside CWD on logits (weight 3, T 4), as in yzd-v/MGD, seg/mmseg/distillation at 2c9da0b. That code sums
the squared differences over channels and positions and multiplies by 2e-5; on its 2048 channels of 64×64 positions this is 168
times their mean. The term is the mean, so that its weight holds for any crop and width. The code compares the backbones' last
maps (512 and 2048 channels); this term compares the features before the classifiers, as all feature terms here do.

Pixels: in a labelled picture all, including ignored and padded ones, as in the authors' code; in a picture without label the real
ones, and the generator sees nothing of the others.
"""

import torch
from torch import Tensor, nn

from segctl.distillers.align import Pair, check_maps, grid_of, paired_features
from segctl.distillers.base import Term
from segctl.distillers.seen import mean_over_seen, nothing_unseen, seen_pixels
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import MaskedGenerationSpec


def kept_positions(like: Tensor, masked: float) -> Tensor:
    """Which positions of maps (B, D, h, w) the generator sees: 0 or 1, (B, 1, h, w); each is masked with that probability.

    Drawn from torch's random state, which checkpoints hold, so a resumed run draws the same masks.
    """
    drawn = torch.rand((len(like), 1, *like.shape[2:]), device=like.device)
    return (drawn <= 1 - masked).to(like.dtype)


def generator(channels: int, enhanced: bool = False) -> nn.Module:
    """The network that generates a teacher's features (B, D, h, w) from masked ones; trained with the student.

    Two 3×3 convolutions with a ReLU between them. enhanced: Af-DCD's larger one.
    """
    if enhanced:
        return EnhancedGenerator(channels)
    return nn.Sequential(_conv(channels), nn.ReLU(inplace=True), _conv(channels))


class EnhancedGenerator(nn.Module):
    """Af-DCD's generator: the mean of one path of two 3×3 convolutions and one of three, which share the first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = _conv(channels), _conv(channels)
        self.short, self.long = _conv(channels), _conv(channels)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, D, h, w) -> (B, D, h, w)."""
        once = self.first(maps).relu()
        twice = self.second(once).relu()
        generated: Tensor = (self.short(once) + self.long(twice)) / 2
        return generated


def _conv(channels: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, 3, padding=1)


class Generated(nn.Module):
    """Student features (B, D, h, w) -> the teacher's as generated from a random part of them, (B, D', h, w).

    A 1×1 convolution with bias brings other numbers of channels to the teacher's first, as in the authors' code.
    """

    def __init__(self, channels: tuple[int, int], masked: float, kind: str, enhanced: bool = False) -> None:
        """channels: of the student and of the teacher.  masked: the share of positions hidden.  kind: for the announcement."""
        super().__init__()
        ours, theirs = channels
        self.align = nn.Identity() if ours == theirs else nn.Conv2d(ours, theirs, 1)
        self.generator = generator(theirs, enhanced)
        self.masked = masked
        size = sum(parameter.numel() for parameter in self.parameters())
        self.announcement = (
            f"{kind}: a generator of {size:,} parameters, which the student is trained with and shipped without, makes the "
            f"teacher's {theirs} channels from {1 - masked:.0%} of the positions of the student's {ours}"
        )

    def forward(self, features: Tensor) -> Tensor:
        aligned = self.align(features)
        generated: Tensor = self.generator(aligned * kept_positions(aligned, self.masked))
        return generated


def reconstruction_distance(generated: Tensor, teacher: Tensor, seen: Tensor | None = None) -> Tensor:
    """Mean squared difference of two maps (B, D, h, w); seen: bool (B, h, w), None for all. Returns a scalar.

    Raises ArgumentError for other shapes. Source: arXiv:2205.01529, its distillation loss, as a mean where the paper has a sum.
    """
    check_maps(generated, teacher)
    difference = (generated - teacher.detach()).square()
    return difference.mean() if seen is None else mean_over_seen(difference.mean(1), seen)


class MaskedGeneration(Term[MaskedGenerationSpec]):
    """`reconstruction_distance` of what `Generated` makes of the student's features, over all positions."""

    mean_over_pixels = False

    def __init__(self, channels: tuple[int, int], masked: float = 0.75) -> None:
        super().__init__()
        self.generated = Generated(channels, masked, "mgd")

    @staticmethod
    def of(spec: MaskedGenerationSpec, pair: Pair) -> "MaskedGeneration":
        return MaskedGeneration(pair.channels(spec.kind), spec.masked)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Features (B, D, h, w) and (B, D', h, w); the label's classes are not read. Returns a scalar of at least 0."""
        ours, theirs = paired_features(student, teacher)
        seen = seen_pixels(student, label, grid_of(ours))
        return reconstruction_distance(self.generated(nothing_unseen(ours, seen)), theirs, seen)
