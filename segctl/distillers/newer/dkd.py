"""DKD: how sure the teacher is of the labelled class and how it ranks the others are learnt separately, each with a factor.

KD multiplies the second part by the probability that the teacher leaves to the other classes, so a sure teacher teaches little
about them. The authors publish classification alone; here every labelled pixel is one of their samples.

Pixels: those with a label. It compares by the label's class, so it needs labels: pictures without label are left out.
"""

from torch import Tensor

from segctl.distillers.align import Pair, check_maps, grid_of, label_on_grid, paired_logits
from segctl.distillers.base import Term
from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.losses.pixels import sum_dtype
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import DecoupledSpec
from segctl.schema.terms.loss_terms import Output


def decoupled_divergence(
    student: Tensor, teacher: Tensor, label: Tensor, alpha: float, beta: float, temperature: float = 1.0
) -> Tensor:
    """T² times the mean over labelled pixels of alpha·KL(b_t || b_s) + beta·KL(o_t || o_s).

    b: the two probabilities of the labelled class and of all others together.  o: the softmax over the other classes alone.
    student, teacher: logits (B, C, h, w).  label: int (B, h, w), 255 ignored.  Returns a scalar; 0 if no pixel has a label.
    Raises ArgumentError for other shapes. Source: arXiv:2203.08679, α·TCKD + β·NCKD; values as megvii-research/mdistiller,
    mdistiller/distillers/DKD.py.
    """
    check_maps(student, teacher, temperature)
    if tuple(label.shape) != (len(student), *student.shape[2:]):
        wanted = (len(student), *student.shape[2:])
        raise ArgumentError(f"label is {tuple(label.shape)}, wanted {wanted} for logits {tuple(student.shape)}")
    labelled = label != IGNORED
    place = label.masked_fill(~labelled, 0).long().unsqueeze(1)
    dtype = sum_dtype(student)
    target_s, rest_s, others_s = _parts(student.to(dtype) / temperature, place)
    target_t, rest_t, others_t = _parts(teacher.detach().to(dtype) / temperature, place)
    binary = target_t.exp() * (target_t - target_s) + rest_t.exp() * (rest_t - rest_s)
    shares = others_t.exp()
    # The labelled class has no share, and 0·(-inf) is not a number.
    ranking = (shares * (others_t - others_s).masked_fill(shares == 0, 0)).sum(1, keepdim=True)
    each = (alpha * binary + beta * ranking).squeeze(1).where(labelled, 0)
    return temperature**2 * each.sum() / labelled.sum().clamp(min=1)


def _parts(logits: Tensor, place: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits (B, C, h, w) and each pixel's class (B, 1, h, w) -> log of its probability and of the rest's (B, 1, h, w), and the
    log softmax over the other classes (B, C, h, w), which is very low at the class itself."""
    without = logits.scatter(1, place, -1e4)
    all_of_them, others = logits.logsumexp(1, keepdim=True), without.logsumexp(1, keepdim=True)
    return logits.gather(1, place) - all_of_them, others - all_of_them, without - others


class Decoupled(Term[DecoupledSpec]):
    """`decoupled_divergence` at head stride, over pixels with a label, which is brought there by nearest neighbour."""

    mean_over_pixels = True
    needs_labels = True

    def __init__(self, logits: Output = "main", alpha: float = 1.0, beta: float = 0.5, temperature: float = 1.0) -> None:
        super().__init__()
        self.logits: Output = logits
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    @staticmethod
    def of(spec: DecoupledSpec, pair: Pair) -> "Decoupled":
        return Decoupled(spec.logits, spec.alpha, spec.beta, spec.temperature)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Logits (B, C, h, w) at head stride, label integer (B, H, W). Returns a scalar of at least 0."""
        ours, theirs = paired_logits(student, teacher, self.logits, "dkd")
        return decoupled_divergence(ours, theirs, label_on_grid(label, grid_of(ours)), self.alpha, self.beta, self.temperature)
