"""CIRKD's memory terms: how every pixel relates to teacher pixels and regions of earlier images.

Weight 0.1 each; on PASCAL VOC 0.01, where 0.1 is known to end below the undistilled student.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segctl.distillers.pair import label_on_grid, paired_features
from segctl.distillers.row_divergence import row_divergence
from segctl.losses.pixels import IGNORE_INDEX
from segctl.models.outputs import Outputs

Queue = Literal["faithful", "fixed"]


class ClassQueues(nn.Module):
    """For each class, a ring of teacher pixels and a ring of teacher regions; unit vectors, random ones at first.

    Per image and class present: one region, the mean of the class's pixels, and up to `each` pixels at random.  Pixels that
    would reach the end of their ring go into its last slots, and the next ones to its beginning, as in the authors' code.
    `faithful` takes, for the k-th pixel of a class, the k-th pixel of the whole image, which is what that code does;
    `fixed` takes the pixel itself.
    """

    pixels: Tensor
    regions: Tensor
    next_pixel: Tensor
    next_region: Tensor

    def __init__(self, num_classes: int, channels: int, slots: tuple[int, int], each: int, queue: Queue) -> None:
        """slots: of each class's pixels and regions."""
        super().__init__()
        self.each, self.queue = each, queue
        self.register_buffer("pixels", F.normalize(torch.randn(num_classes, slots[0], channels), dim=2))
        self.register_buffer("regions", F.normalize(torch.randn(num_classes, slots[1], channels), dim=2))
        self.register_buffer("next_pixel", torch.zeros(num_classes, dtype=torch.long))
        self.register_buffer("next_region", torch.zeros(num_classes, dtype=torch.long))

    @torch.no_grad()
    def store(self, features: Tensor, label: Tensor) -> None:
        """Take in unit vectors (B, D, h, w) under labels (B, h, w), image by image."""
        for image, ids in zip(features.permute(0, 2, 3, 1).flatten(1, 2), label.flatten(1), strict=True):
            found = (ids < len(self.pixels)).nonzero().squeeze(1)
            if len(found):
                self._store_regions(image[found], ids[found])
                self._store_pixels(image, found, ids[found])

    def _store_regions(self, vectors: Tensor, ids: Tensor) -> None:
        sums = torch.zeros_like(self.regions[:, 0]).index_add(0, ids, vectors)
        present = self._count(ids).nonzero().squeeze(1)
        self.regions[present, self.next_region[present]] = F.normalize(sums[present], dim=1)
        self.next_region[present] = (self.next_region[present] + 1) % self.regions.shape[1]

    def _store_pixels(self, image: Tensor, found: Tensor, ids: Tensor) -> None:
        """image (n, D); found: positions of the labelled pixels, in raster order; ids: their classes."""
        shuffled = torch.randperm(len(ids)).to(ids.device)  # from the CPU's generator, whose state is in every checkpoint
        chosen = shuffled[ids[shuffled].argsort(stable=True)]
        rank = self._rank_within(ids[chosen])
        slots = self.pixels.shape[1]
        kept = rank < min(self.each, slots)
        chosen, rank = chosen[kept], rank[kept]
        counts = self._count(ids[chosen])
        wraps = self.next_pixel + counts >= slots
        begin = torch.where(wraps, slots - counts, self.next_pixel)
        self.next_pixel.copy_(torch.where(wraps, 0, begin + counts).where(counts > 0, self.next_pixel))
        source = found[chosen] if self.queue == "fixed" else self._ordinals(ids)[chosen]
        self.pixels[ids[chosen], begin[ids[chosen]] + rank] = image[source]

    def _count(self, ids: Tensor) -> Tensor:
        """How many pixels each class has: (C,)."""
        return torch.bincount(ids, minlength=len(self.pixels))

    def _rank_within(self, ids: Tensor) -> Tensor:
        """For sorted ids, how many equal ones stand before each."""
        counts = self._count(ids)
        return torch.arange(len(ids), device=ids.device) - (counts.cumsum(0) - counts)[ids]

    def _ordinals(self, ids: Tensor) -> Tensor:
        """For ids in any order, how many equal ones stand before each."""
        order = ids.argsort(stable=True)
        return torch.empty_like(ids).index_put((order,), self._rank_within(ids[order]))


class Projector(nn.Sequential):
    """1×1, batch norm, ReLU, 1×1: the student's features in the teacher's space; trained with the student and left behind."""

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__(
            nn.Conv2d(student_channels, teacher_channels, 1, bias=False),
            nn.BatchNorm2d(teacher_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
        )


class Memory(nn.Module):
    """The divergence of a valid pixel's similarities to stored teacher pixels, and to stored regions; both by name.

    A step compares with one random set of slots, the same for all classes: `samples` (pixels, regions) over the number of
    classes, plus one.  The queues take in the step's own teacher features first.
    """

    mean_over_pixels = True

    def __init__(
        self, queues: ClassQueues, student_channels: int, samples: tuple[int, int] = (4096, 1024), temperature: float = 0.1
    ) -> None:
        super().__init__()
        classes, slots, channels = queues.pixels.shape
        self.queues = queues
        self.projector = Projector(student_channels, channels)
        self.samples = (samples[0] // classes + 1, samples[1] // classes + 1)
        self.temperature = temperature
        megabytes = (queues.pixels.numel() + queues.regions.numel()) * queues.pixels.element_size() / 1e6
        self.announcement = (
            f"cirkd_memory: a projector takes the student's {student_channels} channels to the teacher's {channels}; queues of "
            f"{slots:,} pixels and {queues.regions.shape[1]:,} regions for each of {classes} classes, {megabytes:,.0f} MB"
        )

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> dict[str, Tensor]:
        ours, theirs = paired_features(student, teacher)
        on_grid = label_on_grid(label, (ours.shape[-2], ours.shape[-1]))
        theirs = F.normalize(theirs, dim=1)
        self.queues.store(theirs.to(self.queues.pixels.dtype), on_grid)
        valid = on_grid != IGNORE_INDEX
        rows = F.normalize(self.projector(ours), dim=1).permute(0, 2, 3, 1)[valid]
        teacher_rows = theirs.permute(0, 2, 3, 1)[valid]
        return {
            "pixel": self._divergence(rows, teacher_rows, self.queues.pixels, self.samples[0]),
            "region": self._divergence(rows, teacher_rows, self.queues.regions, self.samples[1]),
        }

    def _divergence(self, rows: Tensor, teacher_rows: Tensor, ring: Tensor, samples: int) -> Tensor:
        slots = torch.randperm(ring.shape[1])[:samples].to(ring.device)
        bank = ring[:, slots].flatten(0, 1).unsqueeze(0).to(rows.dtype)
        return row_divergence(rows, bank, teacher_rows, bank, self.temperature)
