"""Mean teacher: the student follows a moving average of its own weights (arXiv:1703.01780).

The average is `segctl.models.moving_average` (equation 1), begun as the plain mean of the first steps. The student
sees the strong view, the average the weak one.
"""

import math

from torch import Tensor

from segctl.losses.pixels import log_or_lowest
from segctl.train.semi.pseudo_labels import Target, mean_over_counted


def ramp(step: int, steps: int, ramp_up: float) -> float:
    """exp(-5·(1 - x)²), where x goes from 0 to 1 during the first `ramp_up` of the steps; 1 from there on.

    step: counted from 0.  Source: arXiv:1610.02242 §3.1, which arXiv:1703.01780 follows.
    """
    length = ramp_up * steps
    return 1.0 if step >= length else math.exp(-5 * (1 - step / length) ** 2)


def squared_difference(logits: Tensor, target: Target) -> Tensor:
    """The mean over pixels and classes of (softmax(logits) - q)², a scalar; logits (B, C, H, W) float32.

    Source: arXiv:1703.01780 §2, J(θ) = E ‖f(x, θ', η') - f(x, θ, η)‖², divided by the number of classes as in the authors' code.
    """
    return mean_over_counted((logits.softmax(1) - target.probabilities).square().mean(1), target)


def divergence(logits: Tensor, target: Target) -> Tensor:
    """The mean over pixels of KL(q || softmax(logits)) = Σ q·(log q - log p), a scalar; logits (B, C, H, W) float32.

    arXiv:1703.01780 compares it with the squared difference in its appendix.
    """
    q = target.probabilities
    return mean_over_counted((q * (log_or_lowest(q) - logits.log_softmax(1))).sum(1), target)
