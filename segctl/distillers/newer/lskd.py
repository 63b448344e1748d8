"""LSKD: KD on standardised logits, so that the student learns the teacher's order of classes and not the size of its logits.

The authors publish classification alone; here every pixel is one of their samples.

Pixels: in a labelled picture all, including ignored and padded ones, as in `kd`; in a picture without label the real ones.
"""

from torch import Tensor

from segctl.distillers.align import Pair, grid_of, paired_logits
from segctl.distillers.base import Term
from segctl.distillers.kd import pixel_kl
from segctl.distillers.seen import seen_pixels
from segctl.losses.pixels import sum_dtype
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import StandardisedSpec
from segctl.schema.terms.loss_terms import Output

_EPSILON = 1e-7


def standardised(logits: Tensor) -> Tensor:
    """(B, C, h, w) -> each pixel's logits with mean 0 and standard deviation 1 over the classes, in at least float32.

    The deviation divides by C - 1. Source: arXiv:2403.01427, the Z-score before the softmax.
    """
    logits = logits.to(sum_dtype(logits))
    return (logits - logits.mean(1, keepdim=True)) / (_EPSILON + _deviation(logits))


def _deviation(logits: Tensor) -> Tensor:
    """The standard deviation over the classes (B, 1, h, w). Its gradient is 0, not undefined, where all logits are equal."""
    variance = logits.var(1, keepdim=True)
    flat = variance == 0
    return variance.masked_fill(flat, 1).sqrt().masked_fill(flat, 0)


class Standardised(Term[StandardisedSpec]):
    """`pixel_kl` of `standardised` logits at head stride, over all pixels as in `kd`.

    Source: arXiv:2403.01427, its pre-process before KD; values as sunshangquan/logit-standardization-KD,
    mdistiller/distillers/KD.py at f6e5aa5. Its weight 9 and temperature 2 are those of the authors' command lines for CIFAR-100
    and ImageNet; they are large because standardised logits are small.
    """

    mean_over_pixels = False

    def __init__(self, logits: Output = "main", temperature: float = 2.0) -> None:
        super().__init__()
        self.logits: Output = logits
        self.temperature = temperature

    @staticmethod
    def of(spec: StandardisedSpec, pair: Pair) -> "Standardised":
        return Standardised(spec.logits, spec.temperature)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Logits (B, C, h, w) at head stride; the label's classes are not read. Returns a scalar of at least 0."""
        ours, theirs = paired_logits(student, teacher, self.logits, "lskd")
        seen = seen_pixels(student, label, grid_of(ours))
        return pixel_kl(standardised(ours), standardised(theirs), self.temperature, seen)
