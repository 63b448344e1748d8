"""CIRKD's memory terms: each pixel should relate to stored pixels and regions of earlier images as the teacher's pixel does.

Weight 0.1 each; 0.01 on PASCAL VOC, where 0.1 is known to end below the undistilled student.

The reference's teacher has 256 channels, so its 19 queues of 20,000 pixels and 2,000 regions take 428 MB; a teacher of 512 takes
twice that. The weights hold for any width, because similarities are cosines.

Pixels: the labelled ones; the queues are sorted by class, so they take nothing of pictures without label either.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segctl.distillers.align import Pair, grid_of, label_on_grid, paired_features
from segctl.distillers.base import Peers, Term
from segctl.distillers.rows.divergence import row_divergence
from segctl.ignored import IGNORED
from segctl.models.outputs import Outputs
from segctl.runtime.live_bytes import as_on_gpu
from segctl.runtime.upload import upload
from segctl.schema.terms.distill_terms import MemorySpec

Queue = Literal["faithful", "fixed"]

_PICK, _PIXELS, _REGIONS = range(3)
"""What is drawn at random: an image's pixels, and the slots of either ring that a step compares with."""


class Picked(NamedTuple):
    """What some images add to the queues, in shapes that do not depend on their labels: the host need not know what a GPU finds.

    pixels: (B, C, k, D), of which each class's first `counts` are meant.  counts: int64 (B, C), at most k; 0 for an absent class.
    regions: (B, C, D), meant where the class is present.
    """

    pixels: Tensor
    counts: Tensor
    regions: Tensor


class ClassQueues(nn.Module):
    """For each class, a ring of teacher pixels and a ring of teacher regions; unit vectors, random ones at first.

    Each image adds, for each of its classes, one region (the mean of the class's pixels) and up to `each` pixels at random.
    Pixels that would reach the end of their ring go into its last slots, and the next ones to its beginning, as in the authors'
    code. For the k-th pixel of a class, `faithful` stores the k-th pixel of the whole image, as that code does by mistake;
    `fixed` stores the pixel itself.

    Every process of a run stores the images of all processes in the order of the global batch. So the queues are equal in all
    of them, and equal to those of one process with the whole batch. Random draws depend on a seed and on how often the queues
    have stored. Both are part of the state (`draws`), so a resumed run draws the same; both are plain numbers, so a GPU need not
    be asked for them.
    """

    pixels: Tensor
    regions: Tensor
    next_pixel: Tensor
    next_region: Tensor

    def __init__(self, num_classes: int, channels: int, slots: tuple[int, int], each: int, queue: Queue) -> None:
        """slots: lengths of each class's ring of pixels and ring of regions. each: pixels stored per image and class."""
        super().__init__()
        self.each, self.queue = each, queue
        self.register_buffer("pixels", F.normalize(torch.randn(num_classes, slots[0], channels), dim=2))
        self.register_buffer("regions", F.normalize(torch.randn(num_classes, slots[1], channels), dim=2))
        self.register_buffer("next_pixel", torch.zeros(num_classes, dtype=torch.long))
        self.register_buffer("next_region", torch.zeros(num_classes, dtype=torch.long))
        self.seed, self.stored = int(torch.randint(2**31, ())), 0
        self._peers: Peers | None = None

    def join(self, peers: Peers) -> None:
        """Store the images of all these processes from now on."""
        self._peers = peers

    @torch.no_grad()
    def store(self, features: Tensor, label: Tensor) -> None:
        """Store unit vectors (B, D, h, w) of labels int64 (B, h, w), image by image. Every process calls it once a step."""
        rank, size = (0, 1) if self._peers is None else (self._peers.rank, self._peers.size)
        # The loader deals the global batch out in turn: image i of this process is image i · size + rank of the batch.
        positions = range(rank, rank + len(features) * size, size)
        picked = self._pick(features.flatten(2).transpose(1, 2), label.flatten(1), positions)
        for of_image in zip(*picked, strict=True) if self._peers is None or size == 1 else self._of_all_processes(picked):
            self._store_image(*of_image)
        self.stored += 1

    def drawn(self, number: int, kind: int, position: int = 0) -> Tensor:
        """A permutation of range(number), int64 (number,) in main memory, for a kind of draw and an image; another one after
        every `store`."""
        return torch.from_numpy(np.random.default_rng([self.seed, self.stored, kind, position]).permutation(number))

    def _pick(self, images: Tensor, label: Tensor, positions: Sequence[int]) -> Picked:
        """images (B, n, D), label (B, n); positions: the images' places in the global batch."""
        (number, each), classes = label.shape, len(self.pixels)
        most = min(self.each, self.pixels.shape[1])
        ids = torch.where(label < classes, label, classes)  # the rest is a class behind all others
        slots = (torch.arange(number, device=ids.device).unsqueeze(1) * (classes + 1) + ids).flatten()
        counts = slots.new_zeros(number * (classes + 1)).scatter_add(0, slots, torch.ones_like(slots)).view(number, -1)
        first = counts.cumsum(1) - counts
        sums = images.new_zeros(number * (classes + 1), images.shape[2]).index_add(0, slots, images.flatten(0, 1))
        regions = F.normalize(sums.view(number, classes + 1, -1)[:, :classes], dim=2)
        # Shuffle, then sort by class: a stable sort leaves each class's pixels in random order; its first ones are the draw.
        shuffled = upload(torch.stack([self.drawn(each, _PICK, position) for position in positions]), ids.device)
        order = shuffled.gather(1, ids.gather(1, shuffled).argsort(dim=1, stable=True))
        places = first[:, :classes, None] + torch.arange(most, device=ids.device)
        source = order.gather(1, places.clamp(max=each - 1).flatten(1))
        if self.queue == "faithful":
            source = self._ordinals(ids, first).gather(1, source)
        pixels = images.gather(1, source.unsqueeze(2).expand(-1, -1, images.shape[2]))
        return Picked(pixels.view(number, classes, most, -1), counts[:, :classes].clamp(max=most), regions)

    def _ordinals(self, ids: Tensor, first: Tensor) -> Tensor:
        """ids (B, n) -> how many equal ones stand before each (B, n); first (B, C + 1): where each class begins in order."""
        order = ids.argsort(dim=1, stable=True)
        ranks = torch.arange(ids.shape[1], device=ids.device) - first.gather(1, ids.gather(1, order))
        return torch.empty_like(ids).scatter(1, order, ranks)

    def _store_image(self, pixels: Tensor, counts: Tensor, regions: Tensor) -> None:
        """pixels (C, k, D), counts (C,), regions (C, D). What is not meant writes what is there already."""
        classes, present = torch.arange(len(counts), device=counts.device), (counts > 0).unsqueeze(1)
        self.regions[classes, self.next_region] = torch.where(present, regions, self.regions[classes, self.next_region])
        self.next_region.add_(counts > 0).remainder_(self.regions.shape[1])
        slots = self.pixels.shape[1]
        wraps = self.next_pixel + counts >= slots
        begin = torch.where(wraps, slots - counts, self.next_pixel)
        offsets = torch.arange(pixels.shape[1], device=counts.device)
        offsets = torch.where(offsets < counts.unsqueeze(1), offsets, 0)  # the rest writes the first pixel once more
        meant = pixels.gather(1, offsets.unsqueeze(2).expand_as(pixels))
        there = self.pixels[classes, begin].unsqueeze(1)
        self.pixels[classes.unsqueeze(1), begin.unsqueeze(1) + offsets] = torch.where(present.unsqueeze(2), meant, there)
        self.next_pixel.copy_(torch.where(wraps, 0, begin + counts))

    def _of_all_processes(self, mine: Picked) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """What all processes have picked, image by image in the order of the global batch.

        An image is one row: its counts, which a float holds exactly, its regions and its pixels.
        """
        assert self._peers is not None
        parts = [mine.counts.to(mine.pixels.dtype), mine.regions.flatten(1), mine.pixels.flatten(1)]
        of_ranks = self._peers.gather_rows(torch.cat(parts, 1))
        for index in range(max(map(len, of_ranks))):
            for rows in of_ranks:
                if index < len(rows):
                    counts, regions, pixels = torch.split(rows[index], [part.shape[1] for part in parts])
                    yield pixels.view(mine.pixels.shape[1:]), counts.long(), regions.view(mine.regions.shape[1:])

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}draws"] = torch.tensor([self.seed, self.stored])

    def _load_from_state_dict(self, state: Any, prefix: str, about: Any, strict: bool, missing: Any, *lists: Any) -> None:
        draws = state.get(f"{prefix}draws")
        if draws is None:
            missing.append(f"{prefix}draws")
        else:
            self.seed, self.stored = draws.tolist()
        others = {name: value for name, value in state.items() if name != f"{prefix}draws"}
        super()._load_from_state_dict(others, prefix, about, strict, missing, *lists)


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
    needs_labels = True

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
        valid = (on_grid != IGNORED).flatten()
        rows = F.normalize(self.projector(ours), dim=1).permute(0, 2, 3, 1).flatten(0, 2)
        teacher_rows = theirs.permute(0, 2, 3, 1).flatten(0, 2)
        counted: Tensor | None = valid
        if valid.device.type == "cpu" and not as_on_gpu(valid):
            # A GPU would have to tell the host how many are left, so it computes them all.
            rows, teacher_rows, counted = rows[valid], teacher_rows[valid], None
        return {
            "pixel": self._divergence(rows, teacher_rows, counted, _PIXELS),
            "region": self._divergence(rows, teacher_rows, counted, _REGIONS),
        }

    def _divergence(self, rows: Tensor, teacher_rows: Tensor, counted: Tensor | None, kind: int) -> Tensor:
        """rows, teacher_rows: unit vectors (M, D'). counted: the rows that count, bool (M,). kind: _PIXELS or _REGIONS."""
        ring, samples = (self.queues.pixels, self.queues.regions)[kind - _PIXELS], self.samples[kind - _PIXELS]
        slots = upload(self.queues.drawn(ring.shape[1], kind)[:samples], ring.device)
        bank = ring[:, slots].flatten(0, 1).unsqueeze(0).to(rows.dtype)
        return row_divergence(rows, bank, teacher_rows, bank, self.temperature, counted)
