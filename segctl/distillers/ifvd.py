"""IFVD: in feature space, each pixel should be as far from the mean of its own class as the teacher's pixel is.

The method is this term beside KD and the discriminator of `discriminator.py`. Weight 20 is that of CIRKD's port, which the
published column comes from; IFVD's own code has 200, beside an element-mean KD of weight 10.

The reference's features have 256 (teacher) and 128 (student) channels. The weight holds for any others, because a cosine does not
grow with the number of channels.

Pixels: all of labelled pictures, where ignored and padded ones add no error and count in the mean, as in the authors' code. It
compares by class, so it needs labels: pictures without label are left out.
"""

from torch import Tensor
from torch.nn import functional as F

from segctl.distillers.align import Pair, check_maps, class_slots, grid_of, label_on_grid, paired_features
from segctl.distillers.base import Term
from segctl.distillers.seen import unlabelled_pictures
from segctl.errors import ArgumentError
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import IntraClassSpec

_EPSILON = 1e-6


def intra_class_variation(
    student: Tensor,
    teacher: Tensor,
    label: Tensor,
    num_classes: int,
    ignore_index: int = 255,
    pictures: Tensor | None = None,
) -> Tensor:
    """Mean over all pixels of (m_s - m_t)², m the cosine of a pixel's feature and its class's mean in the same image.

    student (B, D, h, w), teacher (B, D', h, w), label int (B, h, w). An ignored pixel is its own centre, so it adds no error,
    but it counts in the mean, as in the authors' code. pictures: bool (B,), those that count, None for all. Gradients flow
    through pixels and means. Returns a scalar. Raises ArgumentError for other shapes. Source: Wang et al., Intra-class Feature
    Variation Distillation, ECCV 2020.
    """
    check_maps(student, teacher, same_channels=False)
    if tuple(label.shape) != (len(student), *student.shape[2:]):
        wanted = (len(student), *student.shape[2:])
        raise ArgumentError(f"label is {tuple(label.shape)}, wanted {wanted} for features {tuple(student.shape)}")
    known = label.masked_fill(label == ignore_index, num_classes)
    slots = class_slots(known, num_classes)
    ignored = (known == num_classes).flatten()
    count = len(label) * (num_classes + 1)
    ours = _similarity_to_class(student, slots, count, ignored)
    theirs = _similarity_to_class(teacher.detach(), slots, count, ignored)
    squares = (ours - theirs).square()
    if pictures is None:
        return squares.mean()
    of_images = squares.view(len(label), -1).mean(1)
    return of_images.masked_fill(~pictures, 0.0).sum() / pictures.sum().clamp(min=1)


def _similarity_to_class(features: Tensor, slots: Tensor, count: int, ignored: Tensor) -> Tensor:
    """(B, D, h, w) -> (B·h·w,); `slots` (B·h·w,) holds the number of each pixel's centre, of `count` centres."""
    pixels = features.permute(0, 2, 3, 1).flatten(0, 2)
    sums = pixels.new_zeros(count, pixels.shape[1]).index_add(0, slots, pixels)
    sizes = pixels.new_zeros(count).index_add(0, slots, pixels.new_ones(len(slots)))
    centres = (sums / (sizes + _EPSILON).unsqueeze(1))[slots]
    return F.cosine_similarity(pixels, pixels.where(ignored.unsqueeze(1), centres), dim=1)


class IntraClass(Term[IntraClassSpec]):
    """`intra_class_variation` of the features, the label brought to their grid by nearest neighbour."""

    mean_over_pixels = False  # ignored pixels count in the mean
    needs_labels = True

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    @staticmethod
    def of(spec: IntraClassSpec, pair: Pair) -> "IntraClass":
        return IntraClass(pair.student.classes)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Features (B, D, h, w) and (B, D', h, w), label integer (B, H, W). Returns a scalar from 0 to 4."""
        ours, theirs = paired_features(student, teacher)
        lacking = unlabelled_pictures(student)
        on_grid = label_on_grid(label, grid_of(ours))
        return intra_class_variation(ours, theirs, on_grid, self.num_classes, pictures=None if lacking is None else ~lacking)
