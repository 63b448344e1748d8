"""Whether the loader keeps up with the steps, and how to make it faster."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Feeding:
    """What batches cost and how long steps wait for them, in seconds per step.

    made_s: what one loader process needs for one batch. It is measured in the loader process, so it is right even while the
    steps still use batches made in advance.  cores: for each training process.  codec: how the shards are packed.
    """

    made_s: float
    waited_s: float
    step_s: float
    workers: int
    cores: int
    codec: str

    @property
    def wanted(self) -> int:
        """How many loader processes keep up with steps that never wait; at least one more than now."""
        return max(self.workers + 1, math.ceil(self.made_s / self._unhindered_s))

    @property
    def falls_behind(self) -> bool:
        """Whether the loader is slower than the steps, even if batches made in advance still hide it."""
        return self.workers > 0 and self.made_s > 1.1 * self.workers * self._unhindered_s

    @property
    def _unhindered_s(self) -> float:
        return max(self.step_s - self.waited_s, 1e-9)

    def advice(self) -> str:
        """What to change: `about 4 workers suffice: --set data.workers=4`."""
        if self.wanted <= self.cores:
            return f"about {self.wanted} suffice: --set data.workers={self.wanted}"
        most = f"use --set data.workers={self.cores}" if self.cores > self.workers else "all cores are in use"
        slow = "" if self.codec in ("lz4", "none") else f"; shards packed with --codec lz4 load faster than {self.codec}"
        return f"about {self.wanted} would suffice, but there are cores for {self.cores}: {most}{slow}"
