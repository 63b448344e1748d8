"""The discriminator that SKD, IFVD and CWD share: it should not be able to tell the student's logits from the teacher's.

Defaults are those of CIRKD's port, which the published columns come from: hinge loss, Adam 4e-4 with betas 0.9 and 0.99,
constant. SKD's and IFVD's own code use the Wasserstein loss with gradient penalty (`loss` wgan_gp). The discriminator sees
logits only, in both, although SKD's paper describes the image beside them.

Pixels: in a labelled picture all, including ignored and padded ones; in a picture without label the real ones, beside which the
maps of both networks are 0.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from segctl.distillers.align import GridSize, Pair, grid_of, paired_logits
from segctl.distillers.base import Opponent, Term
from segctl.distillers.seen import nothing_unseen, seen_pixels
from segctl.models.outputs import Outputs, upsample
from segctl.runtime.upload import upload
from segctl.schema.terms.distill_terms import AdversarialSpec
from segctl.schema.terms.loss_terms import Output

_SMALLEST = 64
"""Pixels a side that the discriminator's last layer needs."""
SLOPE = 0.1
"""Of its leaky ReLUs."""


class SelfAttention(nn.Module):
    """x + gamma · attention over all positions, gamma 0 at first; (B, D, h, w) -> the same (arXiv:1805.08318)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, channels // 8, 1)
        self.key = nn.Conv2d(channels, channels // 8, 1)
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.query(x).flatten(2), self.key(x).flatten(2), self.value(x).flatten(2)
        attention = torch.bmm(query.transpose(1, 2), key).softmax(-1)
        seen = torch.bmm(value, attention.transpose(1, 2)).view_as(x)
        return torch.addcmul(x, self.gamma, seen)


def _halve(in_channels: int, out_channels: int) -> nn.Sequential:
    """(B, in, h, w) -> (B, out, h/2, w/2)."""
    conv = nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1)
    return nn.Sequential(spectral_norm(conv), nn.LeakyReLU(SLOPE))


class Discriminator(nn.Sequential):
    """Logits (B, C, h, w), at least 64×64 -> realness (B, 1, h/16 - 3, w/16 - 3).

    Batch norm, four 4×4 convolutions of stride 2 with spectral norm, self-attention after the third and the fourth.
    Source: arXiv:1903.04197, section 3.3, as all code that uses it has it.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(
            nn.BatchNorm2d(num_classes),
            _halve(num_classes, 64),
            _halve(64, 128),
            _halve(128, 256),
            SelfAttention(256),
            _halve(256, 512),
            SelfAttention(512),
            nn.Conv2d(512, 1, 4),
        )


def wide_enough(grid: GridSize) -> GridSize:
    """The grid (h, w) itself, or the smallest grid of the same aspect ratio that the discriminator takes."""
    scale = max(1.0, _SMALLEST / min(grid))
    return max(grid[0], round(grid[0] * scale)), max(grid[1], round(grid[1] * scale))


class Adversarial(Term[AdversarialSpec]):
    """`generator`: -mean D(student), for the student. `discriminator`: the loss of D, which sends no gradient to the student.

    Both come from the same logits and the same D, so one backward pass serves the student and its opponent, and either of
    them may take its step first.
    """

    mean_over_pixels = False

    def __init__(
        self,
        logits: Output,
        num_classes: int,
        grid: GridSize,
        loss: Literal["hinge", "wgan_gp"] = "hinge",
        gradient_penalty: float = 10.0,
        lr: float = 4e-4,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        """num_classes, grid (h, w): of the student's logits. lr, betas: of the discriminator's Adam."""
        super().__init__()
        self.logits: Output = logits
        self.loss = loss
        self.gradient_penalty = gradient_penalty
        self.discriminator = Discriminator(num_classes)
        self.opponent = Opponent(self.discriminator, lr, betas)
        parameters, size = sum(parameter.numel() for parameter in self.discriminator.parameters()), wide_enough(grid)
        grown = "" if size == grid else f"; logit maps of {grid[0]}×{grid[1]} are upsampled to {size[0]}×{size[1]} for it"
        self.announcement = f"adversarial_{logits}: a discriminator of {parameters:,} parameters with an Adam of its own{grown}"

    @staticmethod
    def of(spec: AdversarialSpec, pair: Pair) -> "Adversarial":
        grid = pair.student.of_logits(spec.logits) or pair.student.logits
        return Adversarial(spec.logits, pair.student.classes, grid, spec.loss, spec.gradient_penalty, spec.lr, spec.betas)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> dict[str, Tensor]:
        """Logits (B, C, h, w) at head stride; the label's classes are not read. Returns two scalars; `generator` may be
        below 0."""
        pair = paired_logits(student, teacher, self.logits, "adversarial")
        ours, theirs = (nothing_unseen(maps, seen_pixels(student, label, grid_of(maps))) for maps in pair)
        size = wide_enough(grid_of(ours))
        fake, real = upsample(ours, size), upsample(theirs, size)
        # In the student's part D is a constant: without this, the student's loss would train D to be fooled.
        self.discriminator.requires_grad_(False)
        generator = -self.discriminator(fake).mean()
        self.discriminator.requires_grad_(True)
        return {"generator": generator, "discriminator": self._opponents_loss(fake.detach(), real)}

    def _opponents_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        """Logits of student and teacher (B, C, h, w) -> scalar."""
        on_real, on_fake = self.discriminator(real), self.discriminator(fake)
        if self.loss == "hinge":
            return F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
        distance: Tensor = on_fake.mean() - on_real.mean()
        return distance + self.gradient_penalty * self._penalty(fake, real)

    def _penalty(self, fake: Tensor, real: Tensor) -> Tensor:
        """(norm of D's gradient - 1)² at a random point between each pair of maps (B, C, h, w) (arXiv:1704.00028)."""
        share = upload(torch.rand(len(fake), 1, 1, 1), fake.device).to(fake.dtype)  # its generator's state is in every checkpoint
        between = (share * real + (1 - share) * fake).requires_grad_()
        (gradient,) = torch.autograd.grad(self.discriminator(between).sum(), between, create_graph=True)
        norm: Tensor = torch.linalg.vector_norm(gradient.flatten(1), dim=1)
        return (norm - 1).square().mean()
