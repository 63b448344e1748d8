"""CWD: each channel's map, read as a distribution over the pixels, follows the teacher's.

The method is this divergence on features (weight 50) and on logits (weight 3), T 4, beside KD and the discriminator of
`discriminator.py`. CIRKD's port has it so, and the published column comes from there. The authors' own code uses the logits
alone (weight 3, T 4, no KD, no discriminator; mmrazor: weight 5, T 1): that is a preset with one `cwd` term.

Pixels: in a labelled picture all, including ignored and padded ones, as in both codes; in a picture without label the real ones,
which alone make up the distribution.
"""

from typing import Literal

from torch import Tensor, nn

from segctl.distillers.align import Pair, check_maps, grid_of, paired_features, paired_logits
from segctl.distillers.base import Term
from segctl.distillers.seen import NOWHERE, nothing_unseen, seen_pixels
from segctl.losses.pixels import sum_dtype
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import ChannelFeaturesSpec, ChannelSpec
from segctl.schema.terms.loss_terms import Output

PUBLISHED_FACTOR = 256 / 128
"""Channels of the reference's teacher over those of its students."""


def channel_divergence(student: Tensor, teacher: Tensor, temperature: float, seen: Tensor | None = None) -> Tensor:
    """T² times the mean over images and channels of KL(softmax over pixels of teacher / T || that of student / T).

    student, teacher: (B, K, h, w); seen: bool (B, h, w), None for all. Returns a scalar; it grows with the number of pixels.
    Raises ArgumentError for other shapes. Source: arXiv:2011.13256, equation 5.
    """
    check_maps(student, teacher, temperature)
    # log_softmax, because a softmax rounds to 0 where a map is peaked, and 0 has no logarithm.
    ours, theirs = nothing_unseen(student, seen, NOWHERE), nothing_unseen(teacher.detach(), seen, NOWHERE)
    log_s = (ours.to(sum_dtype(student)).flatten(2) / temperature).log_softmax(2)
    log_t = (theirs.to(log_s.dtype).flatten(2) / temperature).log_softmax(2)
    return temperature**2 * (log_t.exp() * (log_t - log_s)).sum(2).mean()


class ChannelLogits(Term[ChannelSpec]):
    """`channel_divergence` of logits at head stride."""

    mean_over_pixels = False

    def __init__(self, logits: Output = "main", temperature: float = 4.0) -> None:
        super().__init__()
        self.logits: Output = logits
        self.temperature = temperature

    @staticmethod
    def of(spec: ChannelSpec, pair: Pair) -> "ChannelLogits":
        return ChannelLogits(spec.logits, spec.temperature)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Logits (B, C, h, w) at head stride; the label's classes are not read. Returns a scalar of at least 0."""
        ours, theirs = paired_logits(student, teacher, self.logits, "cwd")
        return channel_divergence(ours, theirs, self.temperature, seen_pixels(student, label, grid_of(ours)))


class ChannelAdapter(nn.Conv2d):
    """1×1 without bias, (B, D, h, w) of the student -> (B, D', h, w) as the teacher has; trained with the student."""

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__(student_channels, teacher_channels, 1, bias=False)
        self.announcement = (
            f"cwd_features: a 1×1 convolution takes the student's {student_channels} channels to the teacher's {teacher_channels}"
        )


class ChannelFeatures(Term[ChannelFeaturesSpec]):
    """`channel_divergence` of features, behind a ChannelAdapter where the numbers of channels differ.

    The published code sums over the 256 channels of its teacher and divides by the 128 of its student: twice the mean, which its
    weight of 50 was tuned with (winycg/CIRKD, losses/cwd.py at 2d8ad0f). divide_by "published" is twice the mean whatever the
    widths are; "student" divides by the student's own number, so a teacher of 512 or 768 channels makes the term two or three
    times as strong; "compared" is the mean.
    """

    mean_over_pixels = False

    def __init__(
        self,
        student_channels: int,
        teacher_channels: int,
        temperature: float = 4.0,
        divide_by: Literal["published", "student", "compared"] = "published",
    ) -> None:
        super().__init__()
        differ = student_channels != teacher_channels
        self.adapter: nn.Module = ChannelAdapter(student_channels, teacher_channels) if differ else nn.Identity()
        self.temperature = temperature
        self.factor = {"published": PUBLISHED_FACTOR, "student": teacher_channels / student_channels, "compared": 1.0}[divide_by]

    @staticmethod
    def of(spec: ChannelFeaturesSpec, pair: Pair) -> "ChannelFeatures":
        return ChannelFeatures(*pair.channels(spec.kind), spec.temperature, spec.divide_by)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Features (B, D, h, w) and (B, D', h, w); the label's classes are not read. Returns a scalar of at least 0."""
        ours, theirs = paired_features(student, teacher)
        seen = seen_pixels(student, label, grid_of(ours))
        return self.factor * channel_divergence(self.adapter(ours), theirs, self.temperature, seen)
