"""FixMatch: the class of which the teacher is sure on the weak view is the label of the strong view (arXiv:2001.07685)."""

from torch import Tensor
from torch.nn import functional as F

from segctl.train.semi.pseudo_labels import Target, mean_over_counted


def pseudo_label_loss(logits: Tensor, target: Target) -> Tensor:
    """The mean over pixels of 1(max q ≥ τ)·H(argmax q, softmax(logits)), a scalar; logits (B, C, H, W) float32.

    Source: arXiv:2001.07685, equation 4, with pixels in place of images as in arXiv:2208.09910, equation 3.
    """
    return mean_over_counted(F.cross_entropy(logits, target.probabilities.argmax(1), reduction="none"), target)
