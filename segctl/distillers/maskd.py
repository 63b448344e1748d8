"""MasKD: the student's logits follow the teacher's inside receptive regions that learned tokens pick out.

This follows the authors' segmentation code, which distils logits; their detection code distils features.
There are two stages: first the tokens learn from the teacher alone, then they are constants. In the first stage that code lets
the teacher's batch norm drift and takes the tokens of the step that happened to validate best; here the teacher stays in eval,
and the last tokens are taken.

Pixels: in a labelled picture all, including ignored and padded ones, as in the authors' code; in a picture without label the real
ones. The first stage sees labelled pixels, and the real ones of pictures without label, for which the teacher's own class is the
label.
"""

import torch
from torch import Tensor, nn

from segctl.distillers.align import Pair, check_maps, grid_of, paired_logits
from segctl.distillers.base import Term
from segctl.distillers.seen import nothing_unseen, seen_pixels
from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.losses.pixels import log_likelihood, mean_over_valid, sum_dtype
from segctl.models.outputs import Outputs, at_label_size
from segctl.schema.terms.distill_terms import MaskedSpec, MaskStageSpec
from segctl.schema.terms.loss_terms import Output

INITIAL_STD = 0.01
"""Of the tokens before their stage."""


def receptive_masks(tokens: Tensor, logits: Tensor) -> Tensor:
    """sigmoid of each token's product with each pixel's logits: (K, C) and (B, C, h, w) -> (B, K, h, w)."""
    return torch.einsum("kc,bchw->bkhw", tokens, logits).sigmoid()


def masked_distance(student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
    """½ mean over images, masks k and classes c of sum_i m_k(i)² d_c(i)² / sum_i m_k(i), d = student - teacher.

    student, teacher: logits (B, C, h, w); masks (B, K, h, w). Returns a scalar. Raises ArgumentError for other shapes.
    Source: arXiv:2205.14589, equation 8; the mask is squared because the authors' code multiplies both maps by it first.
    """
    check_maps(student, teacher)
    if masks.ndim != 4 or masks.shape[0] != student.shape[0] or masks.shape[2:] != student.shape[2:]:
        raise ArgumentError(f"got masks {tuple(masks.shape)}, wanted (B, K, h, w) for logits {tuple(student.shape)}")
    difference = (student - teacher.detach()).square().flatten(2)
    weights = masks.detach().flatten(2)
    sums = torch.einsum("bkn,bcn->bkc", weights.square(), difference)
    return (sums / (weights.sum(2, keepdim=True) + 1e-5)).mean() / 2


def mask_overlap(masks: Tensor) -> Tensor:
    """Mean over images and ordered pairs of different masks of 2⟨a, b⟩ / (‖a‖² + ‖b‖²): (B, K, h, w) -> scalar, 0 for K = 1."""
    flat = masks.flatten(2)
    products = flat @ flat.transpose(1, 2)
    norms = products.diagonal(dim1=1, dim2=2)
    dice = 2 * products / (norms.unsqueeze(1) + norms.unsqueeze(2)).clamp(min=1e-12)
    number = masks.shape[1]
    if number == 1:
        return dice.sum() * 0
    # All rows but the last, cut one later each time, hold every pair but those on the diagonal.
    pairs = dice.flatten(1)[:, 1:].reshape(len(dice), number - 1, number + 1)[:, :, :-1]
    return pairs.mean()


class MaskStage(nn.Module):
    """What is trained before the student: tokens (K, C) whose masks leave enough of the teacher's logits to name the class.

    forward: the teacher's Outputs and the label (B, H, W), 255 ignored -> the two parts of the stage's loss, scalars of weight
    1. The authors' code adds a third part, on auxiliary logits; it is a constant and left out here.
    """

    def __init__(self, tokens: int, num_classes: int, settings: MaskStageSpec) -> None:
        super().__init__()
        # A generator of its own: equal settings give equal masks, whatever the run's seed.
        random = torch.Generator().manual_seed(settings.seed)
        self.tokens = nn.Parameter(INITIAL_STD * torch.randn(tokens, num_classes, generator=random))
        self.settings = settings

    def forward(self, teacher: Outputs, label: Tensor) -> dict[str, Tensor]:
        logits = teacher.at_head_stride("main").detach()
        logits = logits.to(sum_dtype(logits))
        masks = receptive_masks(self.tokens, logits)
        covered = at_label_size(masks.sum(1, keepdim=True) * logits, teacher.size)
        if teacher.unlabelled is not None:
            label = torch.where(teacher.unlabelled, teacher.upsampled("main").argmax(1), label.long())
        valid = label != IGNORED
        per_pixel = -log_likelihood(covered, label, valid)  # torch's cross_entropy has no deterministic form on a GPU
        return {"cross_entropy": mean_over_valid(per_pixel, valid), "overlap": mask_overlap(masks)}


class MaskedLogits(Term[MaskedSpec]):
    """`masked_distance` at head stride; the masks are made from the teacher's logits.

    `stage` is trained before step 1; `receive` takes over its tokens.
    """

    mean_over_pixels = False
    tokens: Tensor

    def __init__(self, stage: MaskStage, logits: Output = "main") -> None:
        super().__init__()
        self.logits: Output = logits
        self.register_buffer("tokens", stage.tokens.detach().clone())
        self._stage = (stage,)  # in a tuple: as a submodule, its tokens would train with the student

    @staticmethod
    def of(spec: MaskedSpec, pair: Pair) -> "MaskedLogits":
        return MaskedLogits(MaskStage(spec.tokens, pair.student.classes, spec.stage), spec.logits)

    @property
    def stage(self) -> MaskStage:
        return self._stage[0]

    def receive(self, stage: MaskStage) -> None:
        """Take over the tokens of a trained stage."""
        self.tokens.copy_(stage.tokens.detach())

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        """Logits (B, C, h, w) at head stride; the label's classes are not read. Returns a scalar of at least 0."""
        ours, theirs = paired_logits(student, teacher, self.logits, "maskd")
        seen = seen_pixels(student, label, grid_of(ours))
        masks = nothing_unseen(receptive_masks(self.tokens.to(theirs.dtype), theirs), seen)
        return masked_distance(ours, theirs, masks)
