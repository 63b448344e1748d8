"""CIRKD v2's channel terms: each channel's map should relate to channels of other and of earlier images as the teacher's does.

The method is these three values beside those of CIRKD and FitNet (winycg/CIRKD, losses/cirkd_channel.py, train_cirkdv2.py and
scripts/train_cirkdv2 at dab64db). Two things differ from that code. Its Cityscapes scripts have one image on each GPU, so its
"cross-image" part compares an image with itself there; here images are compared in groups of two, as its other scripts do. And
its queue holds what all GPUs gathered in the order of the ranks; here the order is that of the global batch, so the number of
processes changes nothing.

Pixels: in a labelled picture all, including ignored and padded ones, as in the authors' code; in a picture without label the real
ones: its channels' maps are 0 elsewhere.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segctl.distillers.align import Pair, check_maps, grid_of, groups_of, paired_features
from segctl.distillers.base import Peers, Term
from segctl.distillers.memory import Projector
from segctl.distillers.rows.divergence import row_divergence
from segctl.distillers.seen import nothing_unseen, seen_pixels
from segctl.errors import InputError
from segctl.models.outputs import Outputs
from segctl.runtime.upload import upload
from segctl.schema.terms.distill_terms import CrossChannelSpec

POOL = 4
"""Positions a side that are averaged before channels are compared."""

_STORE, _SAMPLE = range(2)
"""What is drawn at random: the channels that are stored, and the stored ones that a step compares with."""


def channel_vectors(maps: Tensor) -> Tensor:
    """(B, D, h, w) -> (B, D, h·w), each channel's map scaled to length 1."""
    return F.normalize(maps.flatten(2), dim=2)


def cross_channel_similarity(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Mean over all ordered pairs of images, each with itself included, and over channels of KL(teacher's row || student's).

    A row is the softmax of one channel's inner products, over the temperature, with all channels of the other image.
    student, teacher: `channel_vectors` (B, D, n) with equally many channels. Returns a scalar.
    """
    return row_divergence(student.flatten(0, 1), student, teacher.flatten(0, 1), teacher, temperature)


class ChannelQueue(nn.Module):
    """A ring of teacher channels, unit vectors over positions; random ones at first.

    Each step adds up to `each` channels at random out of all images of the global batch. Those that would reach the ring's end
    go into its last slots, and the next ones to its beginning, as in the authors' code. Random draws depend on a seed and on how
    often the queue has stored; both are part of the state, so a resumed run draws the same.
    """

    vectors: Tensor

    def __init__(self, slots: int, positions: int, each: int) -> None:
        super().__init__()
        self.each, self.next = min(each, slots), 0
        self.register_buffer("vectors", F.normalize(torch.randn(slots, positions), dim=1))
        self.seed, self.stored = int(torch.randint(2**31, ())), 0
        self._peers: Peers | None = None

    def join(self, peers: Peers) -> None:
        """Store the images of all these processes from now on."""
        self._peers = peers

    @torch.no_grad()
    def store(self, vectors: Tensor) -> None:
        """Store some of these channels (B, D, n). Every process calls it once a step."""
        images = vectors if self._peers is None or self._peers.size == 1 else torch.stack(list(self._of_all(vectors)))
        channels = images.flatten(0, 1)
        picked = channels[upload(self.drawn(len(channels), _STORE)[: self.each], channels.device)]
        slots = len(self.vectors)
        wraps = self.next + len(picked) >= slots
        begin = slots - len(picked) if wraps else self.next
        self.vectors[begin : begin + len(picked)] = picked.to(self.vectors.dtype)
        self.next = 0 if wraps else begin + len(picked)
        self.stored += 1

    def sample(self, number: int) -> Tensor:
        """Up to `number` stored channels (number, n), other ones after every `store`."""
        return self.vectors[upload(self.drawn(len(self.vectors), _SAMPLE)[:number], self.vectors.device)]

    def drawn(self, number: int, kind: int) -> Tensor:
        """A permutation of range(number), int64 (number,) in main memory, for a kind of draw."""
        return torch.from_numpy(np.random.default_rng([self.seed, self.stored, kind]).permutation(number))

    def _of_all(self, vectors: Tensor) -> Iterator[Tensor]:
        """The images (D, n) of all processes in the order of the global batch, which the loader deals out in turn."""
        assert self._peers is not None
        of_ranks = self._peers.gather_rows(vectors.flatten(1))
        for index in range(max(map(len, of_ranks))):
            for rows in of_ranks:
                if index < len(rows):
                    yield rows[index].view(vectors.shape[1:])

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}draws"] = torch.tensor([self.seed, self.stored, self.next])

    def _load_from_state_dict(self, state: Any, prefix: str, about: Any, strict: bool, missing: Any, *lists: Any) -> None:
        draws = state.get(f"{prefix}draws")
        if draws is None:
            missing.append(f"{prefix}draws")
        else:
            self.seed, self.stored, self.next = draws.tolist()
        others = {name: value for name, value in state.items() if name != f"{prefix}draws"}
        super()._load_from_state_dict(others, prefix, about, strict, missing, *lists)


class CrossChannel(Term[CrossChannelSpec]):
    """`batch`, `memory` and `distance` of the channels' maps, averaged over 4×4 positions, the student's behind a projector.

    batch: `cross_channel_similarity` in groups of images.  memory: the same of each channel's inner products with stored
    channels of the teacher.  distance: the mean squared difference of the unit vectors.
    Source: winycg/CIRKD, losses/cirkd_channel.py at dab64db. All positions count.
    """

    mean_over_pixels = False

    def __init__(self, spec: CrossChannelSpec, channels: tuple[int, int], positions: int) -> None:
        super().__init__()
        self.projector = Projector(*channels)
        self.queue = ChannelQueue(spec.slots, positions, spec.stored_each)
        self.samples, self.group, self.temperature = spec.samples, spec.group, spec.temperature
        megabytes = self.queue.vectors.numel() * self.queue.vectors.element_size() / 1e6
        self.announcement = (
            f"cirkd_channels: a projector takes the student's {channels[0]} channels to the teacher's {channels[1]}; a queue of "
            f"{spec.slots:,} channels of {positions} positions, {megabytes:,.0f} MB"
        )

    @staticmethod
    def of(spec: CrossChannelSpec, pair: Pair) -> "CrossChannel":
        channels, grid = pair.channels(spec.kind), pair.student.features
        assert grid is not None  # a network with channels has a grid
        return CrossChannel(spec, channels, -(-grid[0] // POOL) * -(-grid[1] // POOL))

    def forward(self, student: Outputs, teacher: Outputs, label: Tensor) -> dict[str, Tensor]:
        """Features (B, D, h, w) and (B, D', h, w); the label's classes are not read. Returns three scalars of at least 0,
        and stores the teacher's channels. Raises InputError for maps of another size than those that it was built for."""
        pair = paired_features(student, teacher)
        seen = seen_pixels(student, label, grid_of(pair[0]))
        ours, theirs = (F.avg_pool2d(nothing_unseen(maps, seen), POOL, POOL, ceil_mode=True) for maps in pair)
        if seen is not None:  # the mean of the seen pixels of each window
            share = F.avg_pool2d(seen.unsqueeze(1).to(ours.dtype), POOL, POOL, ceil_mode=True)
            ours, theirs = (maps / share.clamp(min=POOL**-2) for maps in (ours, theirs))
            seen = share.squeeze(1) > 0
        check_maps(ours, theirs, same_channels=False)
        if ours.shape[2] * ours.shape[3] != self.queue.vectors.shape[1]:
            raise InputError(
                f"the distillation term 'cirkd_channels' was built for maps of {self.queue.vectors.shape[1]} pooled positions, "
                f"and got {grid_of(ours)[0]}×{grid_of(ours)[1]}",
                "train on crops of one size, data.crop",
            )
        ours, theirs = channel_vectors(nothing_unseen(self.projector(ours), seen)), channel_vectors(theirs)
        self.queue.store(theirs)
        bank = self.queue.sample(self.samples).unsqueeze(0).to(ours.dtype)
        batch = [
            len(ours[part]) / len(ours) * cross_channel_similarity(ours[part], theirs[part], self.temperature)
            for part in groups_of(len(ours), self.group)
        ]
        return {
            "batch": torch.stack(batch).sum(),
            "memory": row_divergence(ours.flatten(0, 1), bank, theirs.flatten(0, 1), bank, self.temperature),
            "distance": (ours - theirs).square().mean(),
        }
