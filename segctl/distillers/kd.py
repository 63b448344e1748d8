"""KD: the student's softened probabilities follow the teacher's, pixel by pixel.

Pixels: in a labelled picture all, including ignored and padded ones, as in CIRKD's code; in a picture without label the real
ones.
"""

from torch import Tensor

from segctl.distillers.align import Pair, check_maps, grid_of, paired_logits
from segctl.distillers.base import Term
from segctl.distillers.seen import mean_over_seen, seen_pixels
from segctl.losses.pixels import sum_dtype
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import PixelKLSpec
from segctl.schema.terms.loss_terms import Output


def pixel_kl(student: Tensor, teacher: Tensor, temperature: float, seen: Tensor | None = None) -> Tensor:
    """T² times the mean over all pixels of KL(softmax(teacher / T) || softmax(student / T)).

    student, teacher: logits (B, C, h, w); seen: bool (B, h, w), None for all. Returns a scalar; 0 where both give the same
    probabilities. Raises ArgumentError for other shapes. Source: arXiv:1503.02531; summed over classes and averaged over pixels
    as CIRKD (arXiv:2204.06986) computes its KD baseline, ignored and padded pixels included.
    """
    check_maps(student, teacher, temperature)
    log_s = (student.to(sum_dtype(student)) / temperature).log_softmax(1)
    log_t = (teacher.detach().to(log_s.dtype) / temperature).log_softmax(1)
    return temperature**2 * mean_over_seen((log_t.exp() * (log_t - log_s)).sum(1), seen)


class PixelKL(Term[PixelKLSpec]):
    """`pixel_kl` at head stride."""

    mean_over_pixels = False  # a mean over all pixels, ignored ones too, so parts of a batch add up by their images

    def __init__(self, logits: Output = "main", temperature: float = 1.0) -> None:
        super().__init__()
        self.logits: Output = logits
        self.temperature = temperature

    @staticmethod
    def of(spec: PixelKLSpec, pair: Pair) -> "PixelKL":
        return PixelKL(spec.logits, spec.temperature)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Logits (B, C, h, w) at head stride; the label's classes are not read. Returns a scalar of at least 0."""
        ours, theirs = paired_logits(student, teacher, self.logits, "kd")
        return pixel_kl(ours, theirs, self.temperature, seen_pixels(student, label, grid_of(ours)))
