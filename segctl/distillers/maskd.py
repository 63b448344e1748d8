"""MasKD: the student's logits follow the teacher's inside receptive regions that learned tokens pick out.

As the authors' segmentation code has it, which distils logits, and not as their detection code, which distils features.
Two stages: the tokens learn first, from the teacher alone; then they are constants.  Where that code lets the teacher's
batch norm drift in the first stage and keeps the tokens of the step that happened to validate best, the teacher here stays
in eval and the last tokens are taken.
"""

import torch
from torch import Tensor, nn

from segctl.distillers.align import paired_logits
from segctl.losses.pixels import IGNORE_INDEX, log_likelihood, mean_over_valid, sum_dtype
from segctl.models.outputs import Outputs, at_label_size
from segctl.schema.distill_terms import MaskStageSpec
from segctl.schema.loss_terms import Output

INITIAL_STD = 0.01


def receptive_masks(tokens: Tensor, logits: Tensor) -> Tensor:
    """sigmoid of each token's product with each pixel's logits: (K, C) and (B, C, h, w) -> (B, K, h, w)."""
    return torch.einsum("kc,bchw->bkhw", tokens, logits).sigmoid()


def masked_distance(student: Tensor, teacher: Tensor, masks: Tensor) -> Tensor:
    """½ mean over images, masks k and classes c of sum_i m_k(i)² d_c(i)² / sum_i m_k(i), d = student - teacher.

    student, teacher: logits (B, C, h, w); masks (B, K, h, w).  Returns a scalar.
    Source: arXiv:2205.14589, equation 8; the mask is squared because the authors' code lays it over both maps first.
    """
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
    different = ~torch.eye(masks.shape[1], dtype=torch.bool, device=masks.device)
    return dice[:, different].mean() if masks.shape[1] > 1 else dice.sum() * 0


class MaskStage(nn.Module):
    """What learns before the student does: tokens (K, C), by which a teacher's masked logits still name the right class.

    forward: the teacher's Outputs and the label -> the two parts of the stage's loss, both of weight 1.  The authors' third
    part, on auxiliary logits, is a constant.
    """

    def __init__(self, tokens: int, num_classes: int, settings: MaskStageSpec) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(settings.seed)
        self.tokens = nn.Parameter(INITIAL_STD * torch.randn(tokens, num_classes, generator=random))
        self.settings = settings

    def forward(self, teacher: Outputs, label: Tensor) -> dict[str, Tensor]:
        logits = teacher.at_head_stride("main").detach()
        logits = logits.to(sum_dtype(logits))
        masks = receptive_masks(self.tokens, logits)
        seen = at_label_size(masks.sum(1, keepdim=True) * logits, teacher.size)
        valid = label != IGNORE_INDEX
        per_pixel = -log_likelihood(seen, label, valid)  # torch's own has no deterministic form on a GPU
        return {"cross_entropy": mean_over_valid(per_pixel, valid), "overlap": mask_overlap(masks)}


class MaskedLogits(nn.Module):
    """`masked_distance` at head stride; the masks are always the teacher's own.

    `stage` tells the engine what to learn before step 1; its result comes through `receive`.
    """

    mean_over_pixels = False
    tokens: Tensor

    def __init__(self, stage: MaskStage, logits: Output = "main") -> None:
        super().__init__()
        self.logits: Output = logits
        self.register_buffer("tokens", stage.tokens.detach().clone())
        self._stage = (stage,)  # in a tuple, so that its parameters are not the student's to train

    @property
    def stage(self) -> MaskStage:
        return self._stage[0]

    def receive(self, stage: MaskStage) -> None:
        """Take over what the stage has learnt."""
        self.tokens.copy_(stage.tokens.detach())

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> Tensor:
        ours, theirs = paired_logits(student, teacher, self.logits, "maskd")
        masks = receptive_masks(self.tokens.to(theirs.dtype), theirs)
        return masked_distance(ours, theirs, masks)
