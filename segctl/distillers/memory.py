"""CIRKD's memory terms: how each pixel relates to teacher pixels and regions of earlier images.

Weight 0.1 each; 0.01 on PASCAL VOC, where 0.1 is known to end below the undistilled student.

The reference's teacher has 256 channels, so its 19 queues of 20,000 pixels and 2,000 regions take 428 MB; a teacher of 512 takes
twice that. The weights hold for any width, because similarities are cosines.
"""

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segctl.distillers.align import Pair, grid_of, label_on_grid, paired_features
from segctl.distillers.base import Peers, Term
from segctl.distillers.cirkd import row_divergence
from segctl.ignored import IGNORED
from segctl.models.outputs import Outputs
from segctl.schema.distill_terms import MemorySpec

Queue = Literal["faithful", "fixed"]

_PICK, _PIXELS, _REGIONS = range(3)
"""What is drawn at random: an image's pixels, and the slots of either ring that a step compares with."""


class Picked(NamedTuple):
    """What one image adds to the queues: regions (m, D) of classes (m,), and pixels (n, D) of classes (n,), sorted by class."""

    region_classes: Tensor
    regions: Tensor
    pixel_classes: Tensor
    pixels: Tensor


class ClassQueues(nn.Module):
    """For each class, a ring of teacher pixels and a ring of teacher regions; unit vectors, random ones at first.

    Each image adds, for each of its classes, one region (the mean of the class's pixels) and up to `each` pixels at random.
    Pixels that would reach the end of their ring go into its last slots, and the next ones to its beginning, as in the authors'
    code. For the k-th pixel of a class, `faithful` stores the k-th pixel of the whole image, as that code does by mistake;
    `fixed` stores the pixel itself.

    Every process of a run stores the images of all processes in the order of the global batch. So the queues are equal in all
    of them, and equal to those of one process with the whole batch. Random draws depend on a seed and on how often the queues
    have stored. Both are part of the state, so a resumed run draws the same.
    """

    pixels: Tensor
    regions: Tensor
    next_pixel: Tensor
    next_region: Tensor
    draws: Tensor
    """int64 (2,): the seed of all draws, and how often the queues have stored."""

    def __init__(self, num_classes: int, channels: int, slots: tuple[int, int], each: int, queue: Queue) -> None:
        """slots: lengths of each class's ring of pixels and ring of regions. each: pixels stored per image and class."""
        super().__init__()
        self.each, self.queue = each, queue
        self.register_buffer("pixels", F.normalize(torch.randn(num_classes, slots[0], channels), dim=2))
        self.register_buffer("regions", F.normalize(torch.randn(num_classes, slots[1], channels), dim=2))
        self.register_buffer("next_pixel", torch.zeros(num_classes, dtype=torch.long))
        self.register_buffer("next_region", torch.zeros(num_classes, dtype=torch.long))
        self.register_buffer("draws", torch.tensor([int(torch.randint(2**31, ())), 0]))
        self._peers: Peers | None = None

    def join(self, peers: Peers) -> None:
        """Store the images of all these processes from now on."""
        self._peers = peers

    @torch.no_grad()
    def store(self, features: Tensor, label: Tensor) -> None:
        """Store unit vectors (B, D, h, w) of labels int64 (B, h, w), image by image. Every process calls it once a step."""
        rank, size = (0, 1) if self._peers is None else (self._peers.rank, self._peers.size)
        images = zip(features.permute(0, 2, 3, 1).flatten(1, 2), label.flatten(1), strict=True)
        # The loader deals the global batch out in turn: image i of this process is image i · size + rank of the batch.
        positions = [index * size + rank for index in range(len(features))]
        picked = [self._pick(*image, position) for image, position in zip(images, positions, strict=True)]
        for of_image in picked if self._peers is None or size == 1 else _of_all_processes(picked, positions, self._peers):
            self._store_regions(of_image.region_classes, of_image.regions)
            self._store_pixels(of_image.pixel_classes, of_image.pixels)
        self.draws[1] += 1

    def drawn(self, number: int, kind: int, position: int = 0) -> Tensor:
        """A permutation of range(number), int64 (number,), for a kind of draw and an image; another one after every `store`."""
        seed, stored = self.draws.tolist()
        return torch.from_numpy(np.random.default_rng([seed, stored, kind, position]).permutation(number)).to(self.draws.device)

    def _pick(self, image: Tensor, label: Tensor, position: int) -> Picked:
        """image (n, D), label (n,); position: the image's place in the global batch."""
        found = (label < len(self.pixels)).nonzero().squeeze(1)  # labelled pixels, in raster order
        ids = label[found]
        present = self._count(ids).nonzero().squeeze(1)
        sums = torch.zeros_like(self.regions[:, 0]).index_add(0, ids, image[found])
        # Shuffle, then sort by class: a stable sort leaves each class's pixels in random order; the first `each` are the draw.
        shuffled = self.drawn(len(ids), _PICK, position)
        chosen = shuffled[ids[shuffled].argsort(stable=True)]
        chosen = chosen[self._rank_within(ids[chosen]) < min(self.each, self.pixels.shape[1])]
        source = found[chosen] if self.queue == "fixed" else self._ordinals(ids)[chosen]
        return Picked(present, F.normalize(sums[present], dim=1), ids[chosen], image[source])

    def _store_regions(self, classes: Tensor, regions: Tensor) -> None:
        """classes (m,), each at most once; regions (m, D)."""
        self.regions[classes, self.next_region[classes]] = regions
        self.next_region[classes] = (self.next_region[classes] + 1) % self.regions.shape[1]

    def _store_pixels(self, classes: Tensor, pixels: Tensor) -> None:
        """classes (n,), sorted; pixels (n, D)."""
        slots, counts = self.pixels.shape[1], self._count(classes)
        wraps = self.next_pixel + counts >= slots
        begin = torch.where(wraps, slots - counts, self.next_pixel)
        self.next_pixel.copy_(torch.where(wraps, 0, begin + counts).where(counts > 0, self.next_pixel))
        self.pixels[classes, begin[classes] + self._rank_within(classes)] = pixels

    def _count(self, ids: Tensor) -> Tensor:
        """ids (n,) -> how many pixels each class has (C,)."""
        return torch.bincount(ids, minlength=len(self.pixels))

    def _rank_within(self, ids: Tensor) -> Tensor:
        """Sorted ids (n,) -> how many equal ones stand before each (n,)."""
        counts = self._count(ids)
        return torch.arange(len(ids), device=ids.device) - (counts.cumsum(0) - counts)[ids]

    def _ordinals(self, ids: Tensor) -> Tensor:
        """ids (n,) in any order -> how many equal ones stand before each (n,)."""
        order = ids.argsort(stable=True)
        return torch.empty_like(ids).index_put((order,), self._rank_within(ids[order]))


def _of_all_processes(mine: Sequence[Picked], positions: Sequence[int], peers: Peers) -> Iterator[Picked]:
    """What all processes have picked, image by image in the order of the global batch.

    Only picked vectors are sent, (1 + each) for a class and image, and not the features of whole images. A row sent is
    [position, kind (0 region, 1 pixel), class, vector]; float holds these integers exactly.
    """
    rows = [
        torch.cat([classes.new_tensor([position, kind]).expand(len(classes), 2), classes.unsqueeze(1), vectors], 1)
        for of_image, position in zip(mine, positions, strict=True)
        for kind, (classes, vectors) in enumerate((of_image[:2], of_image[2:]))
    ]
    whole = torch.cat(peers.gather_rows(torch.cat(rows)))
    position, kind, classes = whole[:, :3].long().T
    for image in position.unique().tolist():
        regions, pixels = ((position == image) & (kind == which) for which in (0, 1))
        yield Picked(classes[regions], whole[regions, 3:], classes[pixels], whole[pixels, 3:])


class Projector(nn.Sequential):
    """1×1, batch norm, ReLU, 1×1: (B, D, h, w) of the student -> (B, D', h, w) as the teacher has; trained with the student."""

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__(
            nn.Conv2d(student_channels, teacher_channels, 1, bias=False),
            nn.BatchNorm2d(teacher_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
        )


class Memory(Term[MemorySpec]):
    """`pixel` and `region`: the divergence of each valid pixel's similarities to stored teacher pixels, and to stored regions.

    samples: stored pixels and stored regions that each pixel is compared with. They are divided over the classes, plus one for
    each class; a step draws one set of slots for all classes. The queues store the step's own teacher features first.
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

    @staticmethod
    def of(spec: MemorySpec, pair: Pair) -> "Memory":
        student_channels, teacher_channels = pair.channels(spec.kind)
        slots = (spec.pixel_slots, spec.region_slots)
        queues = ClassQueues(pair.student.classes, teacher_channels, slots, spec.pixels_each, spec.queue)
        return Memory(queues, student_channels, (spec.pixel_samples, spec.region_samples), spec.temperature)

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> dict[str, Tensor]:
        """Features (B, D, h, w) and (B, D', h, w), label integer (B, H, W). Returns two scalars of at least 0, and stores the
        teacher's features."""
        ours, theirs = paired_features(student, teacher)
        on_grid = label_on_grid(label, grid_of(ours))
        theirs = F.normalize(theirs, dim=1)
        self.queues.store(theirs.to(self.queues.pixels.dtype), on_grid)
        valid = on_grid != IGNORED
        rows = F.normalize(self.projector(ours), dim=1).permute(0, 2, 3, 1)[valid]
        teacher_rows = theirs.permute(0, 2, 3, 1)[valid]
        return {
            "pixel": self._divergence(rows, teacher_rows, _PIXELS),
            "region": self._divergence(rows, teacher_rows, _REGIONS),
        }

    def _divergence(self, rows: Tensor, teacher_rows: Tensor, kind: int) -> Tensor:
        """rows, teacher_rows: unit vectors (M, D') of the valid pixels. kind: _PIXELS or _REGIONS. Returns a scalar."""
        ring, samples = (self.queues.pixels, self.queues.regions)[kind - _PIXELS], self.samples[kind - _PIXELS]
        slots = self.queues.drawn(ring.shape[1], kind)[:samples]
        bank = ring[:, slots].flatten(0, 1).unsqueeze(0).to(rows.dtype)
        return row_divergence(rows, bank, teacher_rows, bank, self.temperature)
