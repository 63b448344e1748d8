"""A second stream of a GPU: work in it runs while that of the current stream does, where the GPU has room for both.

The streams wait for each other on the GPU; the host waits for neither.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from segctl.errors import first_line

T = TypeVar("T")

STREAM_TOLERANCE = 1e-3
"""Largest difference between what work gives in the two streams, relative to the largest number. Rounding is far below it."""


class SideStream:
    """A stream of its own on a GPU, for work that reads some tensors and gives others."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def queue(self, work: Callable[[], T], reads: Sequence[Tensor]) -> Callable[[], T]:
        """Queue work behind all that the current stream holds now. What is returned gives the work's result, behind which the
        then current stream waits.

        reads: tensors of any shape that the work reads and that the caller may free meanwhile.
        """
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            found = work()
        self._keep(reads, self.stream)

        def result() -> T:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.stream)
            self._keep(tree_leaves(found), current)
            return found

        return result

    def fault_of(self, work: Callable[[], object], reads: Sequence[Tensor]) -> str:
        """Why work cannot be queued here, found by doing it in both streams; empty if both give the same. The host waits.

        reads: tensors of any shape, as of `queue`.
        """
        wanted = _numbers(work())
        try:
            found = _numbers(self.queue(work, reads)())
        except RuntimeError as error:  # out of memory among them
            return f"it does not run on a second stream ({first_line(error)})"
        for mine, theirs in zip(found, wanted, strict=True):
            difference, largest = float((mine - theirs).abs().max()), float(theirs.abs().max())
            if not difference <= STREAM_TOLERANCE * largest:
                return f"its numbers on a second stream differ by {difference:.2g} of {largest:.2g}"
        return ""

    @staticmethod
    def _keep(tensors: Sequence[object], stream: torch.cuda.Stream) -> None:
        """Let the allocator give the tensors' memory to others only when a stream has done what it holds by then."""
        with torch.inference_mode():  # tensors made in it may be marked only there
            for each in tensors:
                if isinstance(each, Tensor):
                    each.record_stream(stream)


def _numbers(found: object) -> list[Tensor]:
    return [each.float() for each in tree_leaves(found) if isinstance(each, Tensor)]
