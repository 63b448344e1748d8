"""Lovász-Softmax: the convex extension of the Jaccard index's error set function."""

import torch
from torch import Tensor

from segctl.errors import ArgumentError
from segctl.ignored import IGNORED
from segctl.losses.base import Loss
from segctl.losses.pixels import check_active, checked_pixels, finite_where_ignored, is_hard, sum_dtype, wide_dtype
from segctl.runtime.live_bytes import as_on_gpu
from segctl.schema.terms.loss_terms import Active, LovaszSpec


class LovaszSoftmaxLoss(Loss[LovaszSpec]):
    """Per class the Lovász extension of the Jaccard loss at the errors |y - p|, then the mean over classes; hard labels only.

    per_image: each image by itself, then the mean over the images that have a valid pixel; otherwise the batch as one image.
    active: the classes averaged over, those "present" in the labels (of the image, or of the batch) or "all".
    logits (B, C, *D); label integer (B, *D); keep_mask bool (B, *D). Returns a scalar. Raises ArgumentError for soft labels.
    Source: arXiv:1705.08790 §2.2-2.3 (alg. 1). It sorts the pixels once per class.
    """

    mean_over_pixels = False

    def __init__(self, per_image: bool = False, active: Active = "present", ignore_index: int | None = IGNORED) -> None:
        super().__init__()
        check_active(active, "LovaszSoftmaxLoss")
        self.per_image, self.active, self.ignore_index = per_image, active, ignore_index

    @staticmethod
    def of(spec: LovaszSpec) -> "LovaszSoftmaxLoss":
        return LovaszSoftmaxLoss(spec.per_image, spec.active)

    def forward(self, logits: Tensor, label: Tensor, keep_mask: Tensor | None = None) -> Tensor:
        valid = checked_pixels(logits, label, self.ignore_index, keep_mask)
        if not is_hard(label):
            raise ArgumentError("LovaszSoftmaxLoss got probabilities, wanted class ids (B, *D); for soft labels use JDTLoss")
        p = finite_where_ignored(logits, valid).softmax(1, dtype=sum_dtype(logits)).reshape(*logits.shape[:2], -1)
        valid = torch.ones_like(label, dtype=torch.bool) if valid is None else valid
        if p.device.type != "cpu" or as_on_gpu(p):
            return self._without_waiting(p, label.long().reshape(len(p), -1), valid.reshape(len(p), -1))
        pairs = list(zip(p, label.long().reshape(len(p), -1), valid.reshape(len(p), -1), strict=True))
        if self.per_image:
            losses = [self._of_pixels(q[:, keep], ids[keep]) for q, ids, keep in pairs if keep.any()]
        else:
            whole = [(q[:, keep], ids[keep]) for q, ids, keep in pairs]
            losses = [self._of_pixels(torch.cat([q for q, _ in whole], 1), torch.cat([ids for _, ids in whole]))]
        return torch.stack(losses).mean() if losses else p.sum() * 0

    def _without_waiting(self, p: Tensor, label: Tensor, valid: Tensor) -> Tensor:
        """p (B, C, N), label int64 (B, N), valid bool (B, N): the same for a GPU, which need not tell the host what it finds.

        Ignored pixels get an error below all others, so that they are sorted last; absent classes are computed and weighted 0.
        """
        if not self.per_image:
            p, label, valid = p.transpose(0, 1).flatten(1).unsqueeze(0), label.reshape(1, -1), valid.reshape(1, -1)
        values, weights = [], []
        for c in range(p.shape[1]):
            truth = (label == c) & valid
            errors, order = (truth.to(p.dtype) - p[:, c]).abs().masked_fill(~valid, -1.0).sort(dim=1, descending=True)
            values.append((errors.clamp(min=0) * _slopes(truth.gather(1, order)).to(p.dtype)).sum(1))
            weights.append((truth if self.active == "present" else valid).any(1))
        counted = torch.stack(weights).to(p.dtype)
        of_images = (torch.stack(values) * counted).sum(0) / counted.sum(0).clamp(min=1)
        return of_images.sum() / valid.any(1).sum().clamp(min=1)

    def _of_pixels(self, p: Tensor, label: Tensor) -> Tensor:
        """p (C, N), label int64 (N,), all of it valid."""
        if label.numel() == 0:
            return p.sum() * 0
        classes = label.bincount().nonzero().flatten().tolist() if self.active == "present" else range(len(p))
        return torch.stack([_extension(p[c], label == c) for c in classes]).mean()


def _extension(p: Tensor, truth: Tensor) -> Tensor:
    """One class: p (N,), truth bool (N,)."""
    errors, order = (truth.to(p.dtype) - p).abs().sort(descending=True)
    return (errors * _slopes(truth[order]).to(p.dtype)).sum()


def _slopes(truth: Tensor) -> Tensor:
    """How much the Jaccard loss grows with each further pixel that is wrong, worst first: (..., N) in `wide_dtype`."""
    wide = wide_dtype(truth.device)
    found, whole = truth.cumsum(-1).to(wide), truth.sum(-1, keepdim=True)
    union = whole + torch.arange(1, truth.shape[-1] + 1, device=truth.device).to(wide) - found
    jaccard = 1 - (whole - found) / union
    return jaccard.diff(prepend=jaccard.new_zeros((*jaccard.shape[:-1], 1)))
