"""Af-DCD: generated features equal the teacher's, and each group of channels is nearer to its own than to all others nearby.

The method is this term beside KD (OSVAI/Af-DCD, losses/ocmgd.py and train_ocmgd.py at 5b086a7). Four things differ from it:

- Its reconstruction is a sum with weight 2e-6; on 2048 channels of 64×128 positions this is 33.6 times the mean that is taken
  here. CamVid's 8e-6 on 45×45 positions is 33.2 times the mean.
- It compares the backbones' last maps; here it is the features before the classifiers, which have fewer channels.
- It clips the gradient of the generator's own weights at norm 15; here they are trained as the student's are.
- Its option for a fixed mask has no effect, because argparse reads any word as true. So masks are random here.

Pixels: in a labelled picture all, including ignored and padded ones, as in the authors' code; in a picture without label the real
ones.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from segctl.distillers.align import Pair, check_maps, grid_of, paired_features
from segctl.distillers.base import Term
from segctl.distillers.newer.mgd import Generated, reconstruction_distance
from segctl.distillers.seen import NOWHERE, mean_over_seen, nothing_unseen, seen_pixels
from segctl.models.outputs import Outputs
from segctl.schema.terms.distill_terms import OmniContrastSpec


def omni_contrast(
    student: Tensor,
    teacher: Tensor,
    *,
    groups: int = 16,
    patch: int = 4,
    pool: int = 4,
    temperature: float = 0.07,
    seen: Tensor | None = None,
) -> Tensor:
    """The number of groups times the mean over tokens of -log(e_pp / (e_pp + Σ_n e_pn)), e = exp(-L1 distance / temperature).

    student, teacher: (B, D, h, w), max-pooled by `pool` and cut into patches of `patch` × `patch` positions and into groups of
    channels. A token is one group at one position. p is the teacher's same token; n are its tokens of all other groups in the
    same patch. What fills no whole pool, patch or group is left out, and maps too small for one patch are pooled less.
    seen: bool (B, h, w), None for all; a pooled position is seen if one of its pixels is, and others have no token.
    Returns a scalar, not 0 where both are equal. Raises ArgumentError for other shapes.
    Source: Fan et al., Augmentation-Free Dense Contrastive Knowledge Distillation, NeurIPS 2023, omni-contrasting.
    """
    check_maps(student, teacher, temperature)
    groups = min(groups, student.shape[1])
    least = min(student.shape[2:])
    pool = max(1, min(pool, least // patch))
    patch = min(patch, least // pool)
    ours = _tokens(F.max_pool2d(nothing_unseen(student, seen), pool), groups, patch)
    theirs = _tokens(F.max_pool2d(nothing_unseen(teacher.detach(), seen), pool), groups, patch)
    similarity = -torch.cdist(ours, theirs, p=1) / temperature
    group = torch.arange(patch * patch * groups, device=student.device) % groups
    same_group = group.unsqueeze(0) == group.unsqueeze(1)
    own = similarity.diagonal(dim1=1, dim2=2)
    others = similarity.masked_fill(same_group, NOWHERE)
    counted: Tensor | None = None
    if seen is not None:
        pooled = F.max_pool2d(seen.unsqueeze(1).float(), pool).expand(-1, groups, -1, -1)
        counted = _tokens(pooled, groups, patch).squeeze(2) > 0
        others = others.masked_fill(~counted.unsqueeze(1), NOWHERE)
    losses = torch.logaddexp(own, others.logsumexp(2)) - own
    shape = (len(student), 1, -1)
    return groups * mean_over_seen(losses.reshape(shape), None if counted is None else counted.reshape(shape))


def _tokens(maps: Tensor, groups: int, patch: int) -> Tensor:
    """(B, D, h, w) -> (B · patches, patch² · groups, D // groups): position by position, and at each one group by group."""
    height, width = (side // patch * patch for side in maps.shape[2:])
    each = maps.shape[1] // groups
    cut = maps[:, : groups * each, :height, :width]
    apart = cut.reshape(len(maps), groups, each, height // patch, patch, width // patch, patch)
    return apart.permute(0, 3, 5, 4, 6, 1, 2).reshape(-1, patch * patch * groups, each)


class OmniContrast(Term[OmniContrastSpec]):
    """`reconstruction_distance` and `omni_contrast` of what `Generated` makes of the student's features, over all positions."""

    mean_over_pixels = False

    def __init__(self, spec: OmniContrastSpec, channels: tuple[int, int]) -> None:
        super().__init__()
        self.generated = Generated(channels, spec.masked, spec.kind, spec.generator == "enhanced")
        self.groups, self.patch, self.pool, self.temperature = spec.groups, spec.patch, spec.pool, spec.temperature

    @staticmethod
    def of(spec: OmniContrastSpec, pair: Pair) -> "OmniContrast":
        return OmniContrast(spec, pair.channels(spec.kind))

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> dict[str, Tensor]:
        """Features (B, D, h, w) and (B, D', h, w); the label's classes are not read. Returns two scalars of at least 0."""
        ours, theirs = paired_features(student, teacher)
        seen = seen_pixels(student, label, grid_of(ours))
        generated = self.generated(nothing_unseen(ours, seen))
        contrast = omni_contrast(
            generated, theirs, groups=self.groups, patch=self.patch, pool=self.pool, temperature=self.temperature, seen=seen
        )
        return {"features": reconstruction_distance(generated, theirs, seen), "contrast": contrast}
