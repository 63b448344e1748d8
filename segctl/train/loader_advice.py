"""Whether the loader keeps up with the steps, and what helps where it does not."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Feeding:
    """What batches cost and what waits for them, in seconds a step.

    made_s is what one loader process needs for one batch. It is measured where the batch is made, so that it is right as well
    while steps still live on batches made ahead.
    """

    made_s: float
    waited_s: float
    step_s: float
    workers: int
    cores: int
    """For each training process."""
    codec: str

    @property
    def wanted(self) -> int:
        """Loader processes that would make batches as fast as steps without waiting use them up; more than there are now."""
        return max(self.workers + 1, math.ceil(self.made_s / self._unhindered_s))

    @property
    def falls_behind(self) -> bool:
        """Whether steps would wait if they did not live on batches made ahead."""
        return self.workers > 0 and self.made_s > 1.1 * self.workers * self._unhindered_s

    @property
    def _unhindered_s(self) -> float:
        return max(self.step_s - self.waited_s, 1e-9)

    def advice(self) -> str:
        """What to change: `about 4 workers would do: --set data.workers=4`."""
        if self.wanted <= self.cores:
            return f"about {self.wanted} would do: --set data.workers={self.wanted}"
        most = f"take --set data.workers={self.cores}" if self.cores > self.workers else "all are at work"
        slow = (
            "" if self.codec in ("lz4", "none") else f"; shards packed with --codec lz4 are read faster than these ({self.codec})"
        )
        return f"about {self.wanted} would do, but there are cores for {self.cores}: {most}{slow}"
