"""(logits, label) -> scalar. One loss per file; every one is called `loss(logits, label, keep_mask=None)`.

logits (B, C, *D); label integer (B, *D) or probabilities (B, C, *D); keep_mask bool (B, *D), False where a pixel is ignored.
Hard labels lose the pixels of id 255 too. A batch without a valid pixel gives 0 and a zero gradient.

    loss                 labels       class weights   what it lowers
    CrossEntropyLoss     hard, soft   weighted mean   -log p of the label, mean over pixels
    FocalLoss            hard, soft   factors         the same, times (1 - p)^gamma
    HardPixelLoss        hard, soft   -               the same over the hardest pixels (OHEM)
    KLLoss               soft         -               cross-entropy without the labels' entropy, with a temperature
    JDTLoss              hard, soft   factors         1 - IoU, Dice or Tversky, as mIoU_D, mIoU_I or mIoU_C average it
    LovaszSoftmaxLoss    hard         -               1 - IoU, by its Lovász extension
    SoftJaccardLoss      hard, soft*  -               1 - IoU with products, a baseline
    SoftDiceLoss         hard, soft*  -               1 - Dice with products, a baseline

*: accepted, but not smallest where the prediction is the label. docs/losses.md says which one to take.
`mean_over_pixels` says whether the value is a mean over the valid pixels, so that parts of a batch add up by their pixels.
"""

from segctl.losses.base import Averaged, Loss
from segctl.losses.build import build_labels, build_loss, build_losses, loss_class
from segctl.losses.cross_entropy import CrossEntropyLoss
from segctl.losses.focal import FocalLoss
from segctl.losses.jdt import JDTLoss
from segctl.losses.kl import KLLoss
from segctl.losses.lovasz import LovaszSoftmaxLoss
from segctl.losses.ohem import HardPixelLoss
from segctl.losses.soft_overlap import SoftDiceLoss, SoftJaccardLoss
from segctl.losses.weighted_terms import LossTerms, NamedLoss

__all__ = [
    "Averaged",
    "CrossEntropyLoss",
    "FocalLoss",
    "HardPixelLoss",
    "JDTLoss",
    "KLLoss",
    "Loss",
    "LossTerms",
    "LovaszSoftmaxLoss",
    "NamedLoss",
    "SoftDiceLoss",
    "SoftJaccardLoss",
    "build_labels",
    "build_loss",
    "build_losses",
    "loss_class",
]
