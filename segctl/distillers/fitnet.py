"""FitNet: behind a 1×1 convolution, the student's features equal the teacher's.

The paper trains on a hint of a middle layer first. CIRKD's code adds the distance of the features before the classifiers to the
loss, with weight 10 beside KD (winycg/CIRKD, losses/fitnet.py and train_scripts/train_kd/train_fitnet.sh at 2d8ad0f). The
reference's features have 256 (teacher) and 128 (student) channels. The weight holds for any others: the distance is a mean.

Pixels: in a labelled picture all, including ignored and padded ones, as in CIRKD's code; in a picture without label the real
ones.
"""

from torch import Tensor, nn

from segctl.distillers.align import Pair, check_maps, grid_of, paired_features
from segctl.distillers.base import Term
from segctl.distillers.seen import mean_over_seen, seen_pixels
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import HintSpec


def hint_distance(student: Tensor, teacher: Tensor, seen: Tensor | None = None) -> Tensor:
    """Mean squared difference of two maps (B, D, h, w); seen: bool (B, h, w), None for all. Returns a scalar.

    Raises ArgumentError for other shapes. Source: arXiv:1412.6550, equation 3, as a mean over all elements and without its half.
    """
    check_maps(student, teacher)
    difference = (student - teacher.detach()).square()
    return difference.mean() if seen is None else mean_over_seen(difference.mean(1), seen)


class Regressor(nn.Conv2d):
    """1×1 without bias, (B, D, h, w) of the student -> (B, D', h, w) as the teacher has; trained with the student."""

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__(student_channels, teacher_channels, 1, bias=False)
        self.announcement = (
            f"fitnet: a 1×1 convolution takes the student's {student_channels} channels to the teacher's {teacher_channels}"
        )


class Hint(Term[HintSpec]):
    """`hint_distance` of the features behind a Regressor, which stands there for equal numbers of channels too, as published."""

    mean_over_pixels = False

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.regressor = Regressor(student_channels, teacher_channels)

    @staticmethod
    def of(spec: HintSpec, pair: Pair) -> "Hint":
        return Hint(*pair.channels(spec.kind))

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Features (B, D, h, w) and (B, D', h, w); the label's classes are not read. Returns a scalar of at least 0."""
        ours, theirs = paired_features(student, teacher)
        return hint_distance(self.regressor(ours), theirs, seen_pixels(student, label, grid_of(ours)))
