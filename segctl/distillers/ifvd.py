"""IFVD: how far each pixel strays from the mean of its own class, in feature space, as the teacher's pixels do.

The method is this term beside KD and the discriminator of `adversarial.py`.  Weight 20 is that of CIRKD's port, behind the
published column; IFVD's own code has 200 beside an element-mean KD of weight 10.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from segctl.distillers.align import class_slots, label_on_grid, paired_features
from segctl.models.outputs import Outputs

EPSILON = 1e-6


def intra_class_variation(student: Tensor, teacher: Tensor, label: Tensor, num_classes: int, ignore_index: int = 255) -> Tensor:
    """Mean over all pixels of (m_s - m_t)², m the cosine of a pixel's feature and its class's mean in the same image.

    student (B, D, h, w), teacher (B, D', h, w), label int (B, h, w).  Ignored pixels are their own centre, so they add no
    error, but they count in the mean, as in the authors' code.  Gradients flow through pixels and means.  Returns a scalar.
    Source: Wang et al., Intra-class Feature Variation Distillation, ECCV 2020.
    """
    known = label.masked_fill(label == ignore_index, num_classes)
    slots = class_slots(known, num_classes)
    ignored = (known == num_classes).flatten()
    count = len(label) * (num_classes + 1)
    ours = _similarity_to_class(student, slots, count, ignored)
    theirs = _similarity_to_class(teacher.detach(), slots, count, ignored)
    return (ours - theirs).square().mean()


def _similarity_to_class(features: Tensor, slots: Tensor, count: int, ignored: Tensor) -> Tensor:
    """(B, D, h, w) -> (B·h·w,); `slots` says which of `count` centres a pixel belongs to."""
    pixels = features.permute(0, 2, 3, 1).flatten(0, 2)
    sums = pixels.new_zeros(count, pixels.shape[1]).index_add(0, slots, pixels)
    sizes = pixels.new_zeros(count).index_add(0, slots, pixels.new_ones(len(slots)))
    centres = (sums / (sizes + EPSILON).unsqueeze(1))[slots]
    return F.cosine_similarity(pixels, pixels.where(ignored.unsqueeze(1), centres), dim=1)


class IntraClass(nn.Module):
    """`intra_class_variation` of the features, the label brought to their grid by nearest neighbour."""

    mean_over_pixels = False  # ignored pixels count in the mean

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        ours, theirs = paired_features(student, teacher)
        grid = (ours.shape[-2], ours.shape[-1])
        return intra_class_variation(ours, theirs, label_on_grid(label, grid), self.num_classes)
